"""Batches of training rows as tensors.

On a CPU, a batch is gathered on request, because a thread would take a core from training. For a GPU, a thread gathers
batches ahead and copies them while the device computes. Knows nothing of validation or of the source of the rows.
"""

import atexit
import threading
from collections.abc import Iterator
from queue import SimpleQueue
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from harness.cache import Rows
from harness.errors import HarnessError

if TYPE_CHECKING:
    import torch

    Batch = tuple[torch.Tensor, torch.Tensor]

# One slot is read by the device, one is being copied, one is being filled.
_SLOTS = 3


def batches(rows: Rows, batch_rows: int, device: "str | torch.device", seed: int) -> Iterator["Batch"]:
    """Endless batches of inputs and targets, each int64 [batch_rows, sequence_length] on the device.

    Each epoch uses every row once, in an order that depends only on the seed and the epoch. A batch may span two
    epochs. On CUDA, only the kernels that read a batch wait for its copy to the device.

    Args:
        rows: uint16 [rows, sequence_length + 1], as returned by `begin`.
    """
    if batch_rows < 1:
        raise HarnessError(f"a batch of {batch_rows} rows is empty; give harness.batches() at least 1.")
    import torch

    device = torch.device(device)
    orders = _orders(len(rows), batch_rows, seed)
    if device.type == "cuda":
        return _prefetched(rows, orders, batch_rows, device)
    return _gathered(rows, orders, device)


def _gathered(rows: Rows, orders: Iterator[npt.NDArray[np.intp]], device: "torch.device") -> Iterator["Batch"]:
    """Batches, gathered on request."""
    import torch

    for order in orders:
        block = torch.from_numpy(rows[order].astype(np.int64)).to(device)
        yield block[:, :-1].contiguous(), block[:, 1:].contiguous()


def _prefetched(
    rows: Rows, orders: Iterator[npt.NDArray[np.intp]], batch_rows: int, device: "torch.device"
) -> Iterator["Batch"]:
    """Batches, gathered ahead by a thread. The thread ends with this iterator, or before the interpreter exits."""
    free: SimpleQueue[_Slot | None] = SimpleQueue()
    ready: SimpleQueue[_Slot | BaseException] = SimpleQueue()
    slots = [_Slot(batch_rows, rows.shape[1], device) for _ in range(_SLOTS)]
    for slot in slots:
        free.put(slot)
    thread = threading.Thread(target=_fill, args=(rows, orders, free, ready), name="harness.batches", daemon=True)

    def stop() -> None:
        free.put(None)
        thread.join()
        for slot in slots:
            slot.copied.synchronize()  # afterwards PyTorch may reuse the memory

    thread.start()
    # If the interpreter exited while a daemon thread is inside CUDA, the process would crash.
    atexit.register(stop)
    try:
        while True:
            filled = ready.get()
            if isinstance(filled, BaseException):
                raise filled
            batch = filled.read()
            free.put(filled)
            yield batch
    finally:
        atexit.unregister(stop)
        stop()


def _fill(
    rows: Rows,
    orders: Iterator[npt.NDArray[np.intp]],
    free: "SimpleQueue[_Slot | None]",
    ready: "SimpleQueue[_Slot | BaseException]",
) -> None:
    """The thread: fill slots until it receives None. An error is passed on to the reader of the batches."""
    try:
        while (slot := free.get()) is not None:
            slot.fill(rows, next(orders))
            ready.put(slot)
    except BaseException as error:
        ready.put(error)


class _Slot:
    """Reusable buffers for one batch of rows, in page-locked host memory and on the device.

    Rows are copied with two bytes a token, as on disk, and become int64 on the device. The buffers are int16, because
    not every kernel supports uint16.

    Attributes:
        copied: Set when the device has the rows, so that the host buffer may be written again.
    """

    def __init__(self, batch_rows: int, row_length: int, device: "torch.device") -> None:
        import torch

        # Works on a CPU too, whose events are always complete.
        self._streams = torch.get_device_module(device)
        self._stream = self._streams.Stream(device)
        self.copied = self._streams.Event()
        self._read = self._streams.Event()
        size = (batch_rows, row_length)
        self._here = torch.empty(size, dtype=torch.int16, pin_memory=device.type == "cuda")
        self._there = torch.empty(size, dtype=torch.int16, device=device)

    def fill(self, rows: Rows, order: npt.NDArray[np.intp]) -> None:
        """Gather these rows and start their copy to the device."""
        self.copied.synchronize()
        # Other modes would gather into a temporary buffer first.
        np.take(rows, order, axis=0, out=self._here.numpy().view(np.uint16), mode="clip")
        with self._streams.stream(self._stream):
            self._stream.wait_event(self._read)
            self._there.copy_(self._here, non_blocking=True)
            self.copied.record(self._stream)

    def read(self) -> "Batch":
        """Inputs and targets, computed on the device after the copy. The slot may be filled again at once."""
        import torch

        current = self._streams.current_stream(self._there.device)
        current.wait_event(self.copied)
        inputs, targets = (
            part.to(torch.int64, memory_format=torch.contiguous_format).bitwise_and_(0xFFFF)  # as unsigned
            for part in (self._there[:, :-1], self._there[:, 1:])
        )
        self._read.record(current)
        return inputs, targets


def _orders(rows: int, batch_rows: int, seed: int) -> Iterator[npt.NDArray[np.intp]]:
    """The row numbers of each batch: intp [batch_rows]."""
    waiting = np.empty(0, dtype=np.intp)
    epoch = 0
    while True:
        while len(waiting) < batch_rows:
            shuffled = np.random.default_rng([abs(seed), epoch]).permutation(rows)
            waiting = np.concatenate([waiting, shuffled])
            epoch += 1
        yield waiting[:batch_rows]
        waiting = waiting[batch_rows:]
