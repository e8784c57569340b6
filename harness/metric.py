"""The metric, bits per byte: how many bits a model needs for a byte of text it has not seen. Computes every loss itself
from logits. Pure functions of tensors; may not know of files, models or processes."""

import math

import torch
import torch.nn.functional as F  # noqa: N812 - the name that every reader of PyTorch knows
from torch import Tensor


class MetricError(Exception):
    """Losses that give no metric; the message says what is wrong with them."""


def target_nats(logits: Tensor, targets: Tensor) -> Tensor:
    """Loss of each target, -ln of the probability it was given: float32 [tokens].

    A logit that is NaN or infinite upwards makes the loss of its target NaN; so does a row of logits that are all
    infinite downwards. A target that was given no probability has an infinite loss.

    Args:
        logits: [tokens, vocab], any floating type.
        targets: int64 [tokens].
    """
    return F.cross_entropy(logits.float(), targets, reduction="none")


def of_text(nats: Tensor, sizes: Tensor) -> Tensor:
    """The losses with those of special tokens set to 0, in place; one that is NaN stays so.

    Args:
        sizes: Bytes of text of each target, 0 for special tokens: int64, of the same shape.
    """
    return nats.masked_fill_((sizes == 0) & ~nats.isnan(), 0.0)


def bits_per_byte(nats: Tensor, sizes: Tensor) -> float:
    """sum(nats) / (ln 2 * sum(bytes)), summed in float64.

    Args:
        nats: Losses as `of_text` gives them, of any shape.
        sizes: Bytes of text of each target, of the same shape.

    Raises:
        MetricError: The sum is not finite, or there is no text.
    """
    total, text_bytes = float(nats.sum(dtype=torch.float64)), int(sizes.sum())
    if not math.isfinite(total):
        raise MetricError(f"the model's logits give a loss of {total}")
    if text_bytes <= 0:
        raise MetricError("the targets hold no text")
    return total / (math.log(2) * text_bytes)
