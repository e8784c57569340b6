"""The metric, bits per byte: how many bits a model needs to encode one byte of unseen text.

Pure functions of tensors; the losses are computed here from logits. Knows nothing of files, models or processes.
"""

import math

import torch
import torch.nn.functional as F  # noqa: N812 - the name that every reader of PyTorch knows
from torch import Tensor


class MetricError(Exception):
    """The losses do not give a metric; the message says why."""


def target_nats(logits: Tensor, targets: Tensor) -> Tensor:
    """Loss of each target, -ln of its probability: float32 [tokens].

    The loss is NaN if a logit is NaN or +inf, or if all logits of a token are -inf. It is infinite if the target's
    logit is -inf and another logit is finite.

    Args:
        logits: [tokens, vocab], any floating type.
        targets: int64 [tokens].
    """
    return F.cross_entropy(logits.float(), targets, reduction="none")


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
