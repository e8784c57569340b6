"""Racing: whether a run that is under way can still show what it has to, by how the campaign's finished runs went.

Pure: curves in, yes or no out. Knows nothing of how a run is ended, nor which changes make two curves incomparable: who
drives it leaves those out.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Sequence
from dataclasses import dataclass

from pytest_autoresearch import student
from pytest_autoresearch.experiment import Direction

Curve = Sequence[tuple[float, float]]  # (share of the budget that is spent, loss), in the order of time

CHECKPOINTS = (0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9)
FINISHED = 8  # runs to learn from before anything is stopped
SPARED = 10  # of so many hopeless runs, one is let finish
_WINDOW = 0.1  # share of the budget that a loss is averaged over
_SURE = 0.99


def smoothed(curve: Curve) -> tuple[float, ...]:
    """The mean loss of the last tenth of the budget before each checkpoint; NaN at those that are not reached."""
    reached = curve[-1][0] if curve else 0.0
    sums, counts = [0.0] * len(CHECKPOINTS), [0] * len(CHECKPOINTS)
    for share, loss in curve:
        # Windows do not overlap: a loss counts for the next checkpoint alone.
        index = max(0, math.ceil((share - CHECKPOINTS[0]) / _WINDOW - 1e-9))
        if index < len(CHECKPOINTS) and share > CHECKPOINTS[index] - _WINDOW + 1e-9:
            sums[index] += loss
            counts[index] += 1
    return tuple(
        total / count if count and checkpoint <= reached + 1e-9 else math.nan
        for total, count, checkpoint in zip(sums, counts, CHECKPOINTS, strict=True)
    )


def is_spared(number: int) -> bool:
    """Whether the experiment's runs are let finish though they are hopeless: one experiment in ten, always the same."""
    return int.from_bytes(hashlib.sha256(str(number).encode()).digest()[:4], "big") % SPARED == 0


@dataclass(frozen=True, slots=True)
class _Finished:
    """A run that went to its end.

    Attributes:
        seed: The data came in an order that is the seed's.
        losses: At the checkpoints.
        metric: What came of it, turned so that less is better.
        won: Whether its commit was kept.
    """

    seed: int
    losses: tuple[float, ...]
    metric: float
    won: bool


class Racer:
    """What the finished runs of a campaign, the incumbents' among them, say about those under way.

    A loss foretells a metric: as much lower as the loss is, so much lower the metric will be, but for the bend that is
    a program's own and for chance. How large both are shows in the runs that went to their end. What a seed's data do
    to a loss is the same for all programs and larger than all else, so a run is raced where another was finished on its
    seed.

    Args:
        direction: Which way the metric improves; a loss always falls.

    Attributes:
        stopped: How many runs were ended early.
        saved: The share of the budget that they did not use, summed: so many whole runs.
        spared: How many hopeless runs were let finish.
        wrong: How many of those then showed what they had to.
    """

    def __init__(self, direction: Direction = Direction.MINIMIZE) -> None:
        self.stopped = 0
        self.saved = 0.0
        self.spared = 0
        self.wrong = 0
        self._sign = 1 if direction is Direction.MINIMIZE else -1
        self._finished: list[_Finished] = []

    def learn(self, seed: int, curve: Curve, metric: float, won: bool) -> None:
        """A run went to its end: the baseline's or an incumbent's, which have won, or after its verdict a candidate's.

        A curve that cannot be compared with the others is not for here.
        """
        if math.isfinite(metric):
            self._finished.append(_Finished(seed, smoothed(curve), self._sign * metric, won))

    def hopeless(self, seed: int, curve: Curve, bar: float) -> bool:
        """Whether the run cannot be expected to beat the bar, by its curve so far.

        Args:
            bar: The metric that it has to beat; see `rule.needed`.
        """
        losses = smoothed(curve)
        reached = [at for at, loss in enumerate(losses) if not math.isnan(loss)]
        if not reached or not math.isfinite(bar):
            return False
        at, bar = reached[-1], self._sign * bar
        finished = [one for one in self._finished if math.isfinite(one.losses[at])]
        return len(finished) >= FINISHED and losses[at] > _bound(finished, at, seed, bar)

    def was_stopped(self, share: float) -> None:
        """A hopeless run was ended at this share of its budget."""
        self.stopped += 1
        self.saved += 1 - share

    def was_spared(self, metric: float, bar: float) -> None:
        """A hopeless run was let finish, and this came of it."""
        self.spared += 1
        self.wrong += self._sign * metric < self._sign * bar


def _bound(finished: Sequence[_Finished], at: int, seed: int, bar: float) -> float:
    """The loss at a checkpoint beyond which a run will not end at the bar.

    Of the finished runs those count that ended near the bar, half of them all: a program that is far worse shows it in
    its own way, and with its own noise. From each is taken what its metric explains of its loss; what is left, less the
    mean of its seed, is its bend and chance. The bound is the upper end of the prediction interval of a run that ends
    at the bar, or where a run with the largest bend of any that won would be, whichever is later.
    """
    nearest = sorted(finished, key=lambda one: abs(one.metric - bar))[: max(FINISHED, len(finished) // 2)]
    slope = _slope(finished, at)
    rests: dict[int, list[float]] = {}
    for one in nearest:
        rests.setdefault(one.seed, []).append(one.losses[at] - slope * one.metric)
    freedom = len(nearest) - len(rests)
    if seed not in rests or freedom < FINISHED - 1:
        return math.inf
    means = {of: sum(values) / len(values) for of, values in rests.items()}
    spread = math.sqrt(sum((rest - means[of]) ** 2 for of, values in rests.items() for rest in values) / freedom)
    width = student.quantile(_SURE, freedom) * math.sqrt(1 + 1 / len(rests[seed])) * spread
    bends = (
        one.losses[at] - slope * one.metric - means[one.seed]
        for one in finished
        if one.seed in means and (one.won or one.metric < bar)
    )
    return means[seed] + slope * bar + max(width, max(bends, default=0.0))


def _slope(finished: Sequence[_Finished], at: int) -> float:
    """How a loss grows with the metric, by the third of the runs that ended furthest from the middle."""
    seeds = [one.seed for one in finished]
    most = max(set(seeds), key=seeds.count)
    alike = sorted((one for one in finished if one.seed == most), key=lambda one: one.metric)
    middle = alike[len(alike) // 2]
    furthest = sorted(alike, key=lambda one: -abs(one.metric - middle.metric))[: -(-len(alike) // 3)]
    ratios = sorted(
        (one.losses[at] - middle.losses[at]) / (one.metric - middle.metric)
        for one in furthest
        if one.metric != middle.metric
    )
    return max(0.0, ratios[len(ratios) // 2]) if ratios else 0.0
