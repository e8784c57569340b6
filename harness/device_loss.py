"""Losses of logits in device memory that another process can write at any time: a kernel that reads each logit once,
into registers, and computes the whole loss from those, so that no copy has to be made first. In Triton, which comes
with PyTorch for CUDA. May not know of models or processes."""

import torch
import triton
import triton.language as tl
from torch import Tensor

_WARPS = 8


@triton.jit
def _losses(logits, targets, nats, vocab, BLOCK: tl.constexpr):  # noqa: N803 - Triton's way to name a constant
    token = tl.program_id(0).to(tl.int64)
    column = tl.arange(0, BLOCK)
    row = logits + token * vocab + column
    # Volatile: once read, never read again.
    read = tl.load(row, mask=column < vocab, other=float("-inf"), volatile=True).to(tl.float32)
    largest = tl.max(read, 0)
    total = tl.sum(tl.exp(read - largest), 0)
    chosen = tl.sum(tl.where(column == tl.load(targets + token), read, 0.0), 0)
    tl.store(nats + token, largest + tl.log(total) - chosen)


def losses(logits: Tensor, targets: Tensor) -> Tensor:
    """-ln of the probability of each target, as `F.cross_entropy` has it, in float32: [rows, sequence].

    A logit that is NaN or infinite upwards makes the loss NaN, and so does a row of logits that are all infinite
    downwards; a target without probability has an infinite loss.

    Args:
        logits: [rows, sequence, vocab], contiguous, on a CUDA device.
        targets: int64 [rows, sequence], there too.
    """
    nats = torch.empty(targets.shape, dtype=torch.float32, device=targets.device)
    vocab = logits.shape[-1]
    _losses[(targets.numel(),)](
        logits, targets.contiguous(), nats, vocab, BLOCK=triton.next_power_of_2(vocab), num_warps=_WARPS
    )
    return nats
