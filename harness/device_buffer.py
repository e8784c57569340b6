"""Memory of a CUDA device that two processes share: the scorer allocates it and gives a handle of 64 bytes, the server
opens that. Through the CUDA runtime that PyTorch has loaded, since PyTorch itself shares tensors in other ways alone.
Where there is no such memory, None, and both sides go through the host. May not know what is kept in it."""

import ctypes
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from harness.exchange import LOGIT_BYTES, Job

_HANDLE_BYTES = 64
_LAZY_PEER_ACCESS = 1  # cudaIpcMemLazyEnablePeerAccess, the only flag there is


class _Handle(ctypes.Structure):
    """cudaIpcMemHandle_t: passed by value, so it has to be a structure."""

    _fields_ = (("reserved", ctypes.c_char * _HANDLE_BYTES),)


@dataclass(slots=True)
class DeviceBuffer:
    """Memory of the current device, allocated by itself: no other tensor lies in what its handle opens.

    Attributes:
        address: On the device.
        size: In bytes.
        handle: Hexadecimal, for the other process.
    """

    address: int
    size: int
    handle: str

    def tensor(self) -> Tensor:
        """All of it: uint8 [size]."""
        return _tensor(self.address, self.size)

    def close(self) -> None:
        """Give it back. Tensors that show it may not be used again."""
        torch.cuda.synchronize()
        if runtime := _runtime():
            runtime.cudaFree(ctypes.c_void_p(self.address))


def allocate(size: int) -> DeviceBuffer | None:
    """Memory of the current device that can be shared, if this device and driver have such."""
    torch.zeros(1, device="cuda")  # loads the runtime and makes the context
    runtime = _runtime()
    if runtime is None:
        return None
    address = ctypes.c_void_p()
    if runtime.cudaMalloc(ctypes.byref(address), ctypes.c_size_t(size)) != 0 or address.value is None:
        runtime.cudaGetLastError()  # else PyTorch's next call would report it
        return None
    handle = _Handle()
    if runtime.cudaIpcGetMemHandle(ctypes.byref(handle), address) != 0:
        runtime.cudaGetLastError()
        runtime.cudaFree(address)
        return None
    return DeviceBuffer(address.value, size, bytes(handle).hex())


def open_device_buffer(job: Job, logit_type: torch.dtype) -> Tensor | None:
    """The scorer's buffer in this process, as logits [rows, sequence, vocab]; None where it cannot be opened."""
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
    """Page-lock shared host memory for this process, so that copies to the device run at the bus's speed."""
    if (runtime := _runtime()) is None:
        return False
    failed = runtime.cudaHostRegister(ctypes.c_void_p(memory.data_ptr()), ctypes.c_size_t(memory.numel()), 0)
    if failed:
        runtime.cudaGetLastError()
    return not failed


class _View:
    """What `torch.as_tensor` takes for an array on the device."""

    def __init__(self, address: int, size: int) -> None:
        self.__cuda_array_interface__ = {"shape": (size,), "typestr": "|u1", "data": (address, False), "version": 3}


def _tensor(address: int, size: int) -> Tensor:
    return torch.as_tensor(_View(address, size), device="cuda")


def _runtime() -> ctypes.CDLL | None:
    """The CUDA runtime of this process: a second one would be another context's."""
    with suppress(OSError):
        for line in Path("/proc/self/maps").read_text(encoding="utf-8").splitlines():
            if "libcudart" in line:
                return ctypes.CDLL(line.split(maxsplit=5)[-1])
    return None
