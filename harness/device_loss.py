"""A Triton kernel that computes losses from logits in device memory that another process may write at any time.

It reads each logit exactly once, into registers, and computes the whole loss from them, so no private copy is needed.
Triton comes with PyTorch for CUDA. Knows nothing of models or processes.
"""

import torch
import triton
import triton.language as tl
from torch import Tensor

_WARPS = 8


@triton.jit
def _losses(logits, targets, nats, vocab, BLOCK: tl.constexpr):  # noqa: N803 - Triton's convention for constants
    token = tl.program_id(0).to(tl.int64)
    column = tl.arange(0, BLOCK)
    row = logits + token * vocab + column
    # Volatile: the compiler must not read a logit twice.
    read = tl.load(row, mask=column < vocab, other=float("-inf"), volatile=True).to(tl.float32)
    largest = tl.max(read, 0)
    # In float64, in which a small sum keeps its digits next to the 1 of the largest logit.
    total = tl.sum(tl.exp(read - largest).to(tl.float64), 0)
    chosen = tl.sum(tl.where(column == tl.load(targets + token), read, 0.0), 0)
    # Subtracted first: next to a large logit, the logarithm would be lost.
    above = largest.to(tl.float64) - chosen.to(tl.float64)
    tl.store(nats + token, (above + tl.log(total)).to(tl.float32))


def losses(logits: Tensor, targets: Tensor) -> Tensor:
    """-ln of the probability of each target, as in `metric.target_nats`: float32 [rows, sequence].

    The loss is NaN if a logit is NaN or +inf, or if all logits of a token are -inf. It is infinite if the target's
    logit is -inf and another logit is finite.

    Args:
        logits: [rows, sequence, vocab], contiguous, on a CUDA device.
        targets: int64 [rows, sequence], on the same device.
    """
    nats = torch.empty(targets.shape, dtype=torch.float32, device=targets.device)
    vocab = logits.shape[-1]
    _losses[(targets.numel(),)](
        logits, targets.contiguous(), nats, vocab, BLOCK=triton.next_power_of_2(vocab), num_warps=_WARPS
    )
    return nats
