"""A run's loss curve, reduced to its loss at eight shares of the budget. Pure."""

from __future__ import annotations

import math
from collections.abc import Sequence

Curve = Sequence[tuple[float, float]]  # (spent share of the budget, loss), in the order of time
LossCurve = Sequence[float | None]  # the loss at each checkpoint; None where not reached

CHECKPOINTS = (0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9)
_WINDOW = 0.1  # the share of the budget over which losses are averaged


class Smoothed:
    """A growing loss curve: at each checkpoint, the mean loss over the last tenth of the budget."""

    def __init__(self) -> None:
        self._sums = [0.0] * len(CHECKPOINTS)
        self._counts = [0] * len(CHECKPOINTS)

    def add(self, share: float, loss: float) -> None:
        """Add a loss, printed when this share of the budget was spent."""
        # Windows do not overlap: a loss counts only for the next checkpoint.
        index = max(0, math.ceil((share - CHECKPOINTS[0]) / _WINDOW - 1e-9))
        if index < len(CHECKPOINTS) and share > CHECKPOINTS[index] - _WINDOW + 1e-9:
            self._sums[index] += loss
            self._counts[index] += 1

    def losses(self, share: float) -> tuple[float | None, ...]:
        """The losses at the checkpoints up to this share of the budget; None at later ones."""
        return tuple(
            total / count if count and checkpoint <= share + 1e-9 else None
            for total, count, checkpoint in zip(self._sums, self._counts, CHECKPOINTS, strict=True)
        )


def smoothed(curve: Curve) -> tuple[float | None, ...]:
    """The losses of a whole curve at the checkpoints."""
    grown = Smoothed()
    for share, loss in curve:
        grown.add(share, loss)
    return grown.losses(curve[-1][0] if curve else 0.0)
