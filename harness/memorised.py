"""The look for memorised text: whether a model is much better on the rows of a verdict than on fresh rows of its pool.

Which rows are which is drawn at random with a secret. So for a program that does not know them, the gain on the
baseline is the same on both, up to chance. Pure; knows nothing of processes or files.
"""

import math
from dataclasses import dataclass

from torch import Tensor

LEAST_ROWS = 8
"""With fewer fresh rows there is no look."""

TOLERANCE = 0.005
"""Share of the baseline's loss: a smaller difference is no reason. A campaign that selects by the rows of its verdicts
gains a little more on them than on others, honestly."""

_SIGMAS = 4.75
"""Of a normal distribution; one in a million is beyond it."""


@dataclass(frozen=True, slots=True)
class Look:
    """What a look found, in bits per byte.

    Attributes:
        rows: Number of fresh rows.
        excess: The gain on the baseline on the rows of the verdict, minus that on the fresh rows.
        most: The largest excess that chance and selection may give.
    """

    rows: int
    excess: float
    most: float

    @property
    def rejected(self) -> bool:
        return self.excess > self.most


def look(nats: Tensor, baseline: Tensor, sizes: Tensor, measured: int) -> Look | None:
    """Compare the gains on both kinds of rows; None if there are too few fresh rows.

    Args:
        nats: The model's losses: first those of the verdict's rows, then those of the fresh ones: [rows, sequence].
        baseline: The baseline's losses of the same rows.
        sizes: Bytes of text of each target: int64 [rows, sequence].
        measured: Number of the verdict's rows.
    """
    fresh = len(nats) - measured
    if fresh < LEAST_ROWS:
        return None
    gains, text = (baseline.double() - nats.double()).sum(1), sizes.sum(1).double()
    told, other = (float(gains[part].sum() / text[part].sum()) for part in (slice(measured), slice(measured, None)))
    # Only the fresh rows say how much gains differ from row to row: memorised rows would make every excess look usual.
    apart = gains[measured:] - other * text[measured:]
    deviation = math.sqrt(float((apart**2).sum()) / (fresh - 1)) / float(text[measured:].mean())
    chance = _quantile(fresh - 1) * deviation * math.sqrt(1 / measured + 1 / fresh)
    selection = TOLERANCE * float(baseline[:measured].double().sum() / text[:measured].sum())
    return Look(fresh, (told - other) / math.log(2), (chance + selection) / math.log(2))


def even(nats: Tensor, sizes: Tensor, measured: int) -> Tensor:
    """A baseline that loses the same on each byte, as much as the model on the fresh rows; see `look`.

    For where the losses of the real one are not at hand: rows differ more in their losses than in gains.
    """
    return sizes * float(nats[measured:].sum() / sizes[measured:].sum())


def _quantile(freedom: int) -> float:
    """Student's t for `_SIGMAS`, by its expansion in 1 / freedom."""
    z = _SIGMAS
    first, second = (z**3 + z) / 4, (5 * z**5 + 16 * z**3 + 3 * z) / 96
    return z + first / freedom + second / freedom**2
