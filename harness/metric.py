"""The metric, bits per byte: how many bits a model needs to encode one byte of unseen text.

Pure functions of tensors; the losses are computed here from logits. Knows nothing of files, models or processes.
"""

import math

import torch
from torch import Tensor


class MetricError(Exception):
    """The losses do not give a metric; the message says why."""


def target_nats(logits: Tensor, targets: Tensor) -> Tensor:
    """Loss of each target, -ln of its probability: float32 [tokens].

    Whatever the logits are, the error is below a hundred-thousandth of the loss, or below 1e-12. The loss is NaN if a
    logit is NaN or +inf, or if all logits of a token are -inf. It is infinite if the target's logit is -inf and another
    logit is finite.

    Args:
        logits: [tokens, vocab], any floating type.
        targets: int64 [tokens].
    """
    logits = logits.float()
    largest = logits.amax(-1, keepdim=True)
    # In float64, in which a small sum keeps its digits next to the 1 of the largest logit.
    total = (logits - largest).exp_().sum(-1, dtype=torch.float64)
    # Subtracted first: next to a large logit, the logarithm would be lost.
    above = largest.double() - logits.gather(-1, targets[:, None]).double()
    return (above.squeeze(-1) + total.log()).float()


def of_text(nats: Tensor, sizes: Tensor) -> Tensor:
    """Set the losses of special tokens to 0, in place; NaN stays NaN.

    Args:
        sizes: Bytes of text of each target, 0 for special tokens: int64, of the same shape.
    """
    return nats.masked_fill_((sizes == 0) & ~nats.isnan(), 0.0)


def bits_per_byte(nats: Tensor, sizes: Tensor) -> float:
    """sum(nats) / (ln 2 * sum(bytes)), summed in float64.

    Args:
        nats: Losses as returned by `of_text`, of any shape.
        sizes: Bytes of text of each target, of the same shape.

    Raises:
        MetricError: The sum is not finite, or there is no text.
    """
    total, text_bytes = float(nats.sum(dtype=torch.float64)), int(sizes.sum())
    if not math.isfinite(total):
        raise MetricError(f"the model's logits give a loss of {total}")
    if text_bytes <= 0:
        raise MetricError("the targets contain no text")
    return total / (math.log(2) * text_bytes)
