"""Batches of training rows as tensors. May not know where rows come from, or of validation."""

from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from harness.cache import Rows
from harness.errors import HarnessError

if TYPE_CHECKING:
    import torch


def batches(
    rows: Rows, batch_rows: int, device: "str | torch.device", seed: int
) -> Iterator["tuple[torch.Tensor, torch.Tensor]"]:
    """Inputs and targets for ever, each int64 [batch_rows, sequence_length] on the device.

    Each epoch goes through all rows once, in an order that depends on the seed and the epoch alone; a batch may
    span two epochs. On CUDA the loop does not wait for the copy to the device.

    Args:
        rows: uint16 [rows, sequence_length + 1], as `begin` gives them.
    """
    if batch_rows < 1:
        raise HarnessError(f"a batch of {batch_rows} rows is empty; give harness.batches() at least 1.")
    return _batches(rows, batch_rows, device, seed)


def _batches(
    rows: Rows, batch_rows: int, device: "str | torch.device", seed: int
) -> Iterator["tuple[torch.Tensor, torch.Tensor]"]:
    import torch

    device = torch.device(device)
    for order in _orders(len(rows), batch_rows, seed):
        block = torch.from_numpy(rows[order].astype(np.int64))
        if device.type == "cuda":
            # From page-locked memory the copy is queued like a kernel; from any other the loop would wait for it.
            block = block.pin_memory().to(device, non_blocking=True)
        yield block[:, :-1].contiguous(), block[:, 1:].contiguous()


def _orders(rows: int, batch_rows: int, seed: int) -> Iterator[npt.NDArray[np.intp]]:
    """Row numbers of one batch after another: intp [batch_rows]."""
    waiting = np.empty(0, dtype=np.intp)
    epoch = 0
    while True:
        while len(waiting) < batch_rows:
            shuffled = np.random.default_rng([abs(seed), epoch]).permutation(rows)
            waiting = np.concatenate([waiting, shuffled])
            epoch += 1
        yield waiting[:batch_rows]
        waiting = waiting[batch_rows:]
