"""CUDA device memory that two processes share: the scorer allocates it, and the model server opens its 64-byte handle.

Calls the CUDA runtime that PyTorch has loaded, because PyTorch itself has no function for this. If sharing does not
work, the functions return None, and both processes use host memory. Does not know what is stored in the memory.
"""

import ctypes
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from harness.exchange import LOGIT_BYTES, Job

_HANDLE_BYTES = 64
_LAZY_PEER_ACCESS = 1  # cudaIpcMemLazyEnablePeerAccess, the only flag


class _Handle(ctypes.Structure):
    """cudaIpcMemHandle_t; a structure, because it is passed by value."""

    _fields_ = (("reserved", ctypes.c_char * _HANDLE_BYTES),)


@dataclass(slots=True)
class DeviceBuffer:
    """Memory of the current device. It is a separate allocation, so its handle gives access to no other tensor.

    Attributes:
        address: Its address on the device.
        size: Its size in bytes.
        handle: The handle for the other process, in hexadecimal.
    """

    address: int
    size: int
    handle: str

    def tensor(self) -> Tensor:
        """All of it: uint8 [size]."""
        return _tensor(self.address, self.size)

    def close(self) -> None:
        """Free the memory. Tensors that use it are invalid afterwards."""
        torch.cuda.synchronize()
        if runtime := _runtime():
            runtime.cudaFree(ctypes.c_void_p(self.address))


def allocate(size: int) -> DeviceBuffer | None:
    """Allocate memory that can be shared; None if this device or driver does not support that."""
    torch.zeros(1, device="cuda")  # loads the runtime and creates the context
    runtime = _runtime()
    if runtime is None:
        return None
    address = ctypes.c_void_p()
    if runtime.cudaMalloc(ctypes.byref(address), ctypes.c_size_t(size)) != 0 or address.value is None:
        runtime.cudaGetLastError()  # clears the error, which PyTorch's next call would report
        return None
    handle = _Handle()
    if runtime.cudaIpcGetMemHandle(ctypes.byref(handle), address) != 0:
        runtime.cudaGetLastError()
        runtime.cudaFree(address)
        return None
    return DeviceBuffer(address.value, size, bytes(handle).hex())


def open_device_buffer(job: Job, logit_type: torch.dtype) -> Tensor | None:
    """The scorer's buffer in this process, as logits [rows, sequence, vocab]; None if it cannot be opened."""
    if not job.device_buffer or (runtime := _runtime()) is None:
        return None
    handle = _Handle.from_buffer_copy(bytes.fromhex(job.device_buffer))
    address = ctypes.c_void_p()
    opened = runtime.cudaIpcOpenMemHandle(ctypes.byref(address), handle, ctypes.c_uint(_LAZY_PEER_ACCESS))
    if opened != 0 or address.value is None:
        runtime.cudaGetLastError()
        return None
    memory = _tensor(address.value, job.logits * LOGIT_BYTES["float32"])
    return memory.view(logit_type)[: job.logits].view(job.rows, job.sequence_length, job.vocab_size)


def pin(memory: Tensor) -> bool:
    """Page-lock shared host memory for this process, so that copies to the device are fast. False on failure."""
    if (runtime := _runtime()) is None:
        return False
    failed = runtime.cudaHostRegister(ctypes.c_void_p(memory.data_ptr()), ctypes.c_size_t(memory.numel()), 0)
    if failed:
        runtime.cudaGetLastError()
    return not failed


class _View:
    """Device memory in the form that `torch.as_tensor` accepts."""

    def __init__(self, address: int, size: int) -> None:
        self.__cuda_array_interface__ = {"shape": (size,), "typestr": "|u1", "data": (address, False), "version": 3}


def _tensor(address: int, size: int) -> Tensor:
    return torch.as_tensor(_View(address, size), device="cuda")


def _runtime() -> ctypes.CDLL | None:
    """The CUDA runtime that this process has loaded; a second copy would use another context."""
    with suppress(OSError):
        for line in Path("/proc/self/maps").read_text(encoding="utf-8").splitlines():
            if "libcudart" in line:
                return ctypes.CDLL(line.split(maxsplit=5)[-1])
    return None
