"""The metric, bits per byte: how many bits a model needs for a byte of text it has not seen. Computes every loss itself
from logits. Pure functions of tensors; may not know of files, models or processes."""

import math
from collections.abc import Callable

import torch
from torch import Tensor


class MetricError(Exception):
    """Logits that give no metric; the message says what is wrong with them."""


Logits = Callable[[Tensor], Tensor]
"""A model as the metric sees it: tokens int64 [batch, sequence] to logits [batch, sequence, vocab]."""


def token_nats(logits: Tensor, targets: Tensor) -> Tensor:
    """Loss of each target, -ln of the probability it was given: float32, shaped as `targets`.

    Args:
        logits: Any floating type, [..., vocab].
        targets: int64 [...].
    """
    logits = logits.float()
    return torch.logsumexp(logits, dim=-1) - logits.gather(-1, targets.unsqueeze(-1)).squeeze(-1)


def bits_per_byte(nats: float, text_bytes: int) -> float:
    """sum(nats) / (ln 2 * sum(bytes)).

    Raises:
        MetricError: The sum is not finite, or there is no text.
    """
    if not math.isfinite(nats):
        raise MetricError(f"the model's logits give a loss of {nats}")
    if text_bytes <= 0:
        raise MetricError("the targets hold no text")
    return nats / (math.log(2) * text_bytes)


def sum_losses(logits: Tensor, targets: Tensor, token_bytes: Tensor) -> tuple[float, int]:
    """Summed nats and bytes over the targets that have bytes; special tokens are left out of both.

    Args:
        logits: [batch, sequence, vocab].
        targets: int64 [batch, sequence].
        token_bytes: int64 [vocab], 0 for special tokens.
    """
    sizes = token_bytes[targets]
    nats = token_nats(logits, targets).double()
    # A mask by multiplication would turn an infinite loss of a special token into NaN.
    return float(nats[sizes > 0].sum()), int(sizes.sum())


def evaluate(logits_of: Logits, rows: Tensor, token_bytes: Tensor, batch_rows: int) -> float:
    """Bits per byte of a model over rows.

    Args:
        rows: int64 [rows, sequence + 1]: each position but the last is an input, each but the first a target.
        token_bytes: int64 [vocab], 0 for special tokens.
        batch_rows: Rows given to the model at once; changes memory and speed, not the metric.

    Raises:
        MetricError: Logits of another shape or kind, not finite, or no text in the targets.
    """
    nats, text_bytes = 0.0, 0
    for first in range(0, len(rows), batch_rows):
        block = rows[first : first + batch_rows]
        # A copy of the inputs, since a view would lead a model to the targets beside them.
        inputs, targets = block[:, :-1].contiguous(), block[:, 1:]
        logits = logits_of(inputs)
        _check(logits, (*inputs.shape, len(token_bytes)))
        batch_nats, batch_bytes = sum_losses(logits, targets, token_bytes)
        nats += batch_nats
        text_bytes += batch_bytes
    return bits_per_byte(nats, text_bytes)


def _check(logits: object, shape: tuple[int, ...]) -> None:
    if not isinstance(logits, Tensor):
        raise MetricError(f"the model gave {type(logits).__name__} and not a tensor of logits")
    if tuple(logits.shape) != shape:
        raise MetricError(f"the model gave logits of shape {list(logits.shape)} and not {list(shape)}")
    if not logits.is_floating_point():
        raise MetricError(f"the model gave logits of type {logits.dtype}")
