"""Racing: decides from its losses whether a run can still reach its threshold, by comparison with finished runs.

Pure: losses in, a decision out. Knows nothing of how a run is stopped or where its losses come from.
"""

from __future__ import annotations

import hashlib
import math
import re
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from pytest_autoresearch.core.experiment import Direction, Experiment
from pytest_autoresearch.core.history import chain
from pytest_autoresearch.core.loss_curve import CHECKPOINTS, LossCurve
from pytest_autoresearch.keeprule import student_t

FINISHED = 8  # finished runs that are needed before any run is stopped
SPARED = 10  # one of so many experiments is a control: its hopeless runs are not stopped
_SURE = 0.999  # with 0.997, more than one in fifty true gains was stopped in simulations
_RELATED = 0.95


# Words in a changed line that can change the shape or the unit of a loss curve: batches, schedules, the loss, printing.
_DISTORTS = re.compile(
    r"batch|accum|schedul|warm|cool|anneal|decay|lrm|loss|entropy|nll|smooth|seq_len|sequence_length|print|budget",
    re.IGNORECASE,
)


def distorts(changed: Iterable[str]) -> bool:
    """Whether the loss curve may be incomparable with the one before, judged by words in the added and removed lines.

    It errs towards True, which only costs time: the run is not raced.
    """
    return any(_DISTORTS.search(line) for line in changed)


def is_spared(number: int) -> bool:
    """Whether the experiment is a control, whose hopeless runs are not stopped: a fixed choice of one in ten."""
    return int.from_bytes(hashlib.sha256(str(number).encode()).digest()[:4], "big") % SPARED == 0


@dataclass(frozen=True, slots=True)
class _Finished:
    """A finished run.

    Attributes:
        seed: Its seed, which sets the order of the data.
        losses: The loss at each checkpoint; NaN if missing.
        metric: The metric with its sign set so that less is better.
        won: Whether its commit was kept.
    """

    seed: int
    losses: tuple[float, ...]
    metric: float
    won: bool


class Racer:
    """Predicts from a campaign's finished runs which running ones are hopeless.

    The model: a program's loss differs from another's in proportion to their metrics, plus the bend (the shape of the
    program's own curve), plus chance. Finished runs show how large bend and chance are. The order of the data, set by
    the seed, has the largest effect on a loss and is the same for all programs. So a run is raced only if other runs
    on its seed have finished.

    Args:
        direction: Which way the metric improves; a loss always falls.
    """

    def __init__(self, direction: Direction = Direction.MINIMIZE) -> None:
        self._sign = 1 if direction is Direction.MINIMIZE else -1
        self._finished: list[_Finished] = []

    def learn(self, seed: int, losses: LossCurve, metric: float, won: bool) -> None:
        """Add a finished run, whose curve must be comparable with the others.

        Args:
            seed: The run's seed.
            losses: Its losses at the checkpoints.
            metric: Its metric.
            won: Whether its commit was kept; true for the baseline.
        """
        if math.isfinite(metric) and len(losses) == len(CHECKPOINTS):
            known = tuple(math.nan if loss is None else loss for loss in losses)
            self._finished.append(_Finished(seed, known, self._sign * metric, won))

    def limit(self, at: int, seed: int, bar: float) -> float | None:
        """The loss at a checkpoint above which a run on this seed is hopeless; None while too few runs have finished.

        Args:
            at: The index of the checkpoint.
            seed: The run's seed.
            bar: The metric that the run has to beat; see `rule.needed`.
        """
        finished = [one for one in self._finished if math.isfinite(one.losses[at])]
        if len(finished) < FINISHED:
            return None
        limit = _bound(finished, at, seed, self._sign * bar)
        return limit if limit < math.inf else None


def _bound(finished: Sequence[_Finished], at: int, seed: int, bar: float) -> float:
    """The loss at a checkpoint above which a run will not reach the bar.

    Only the half of the finished runs that ended nearest to the bar counts, because much worse programs have other
    curves and other noise. The residual of a run is its loss, minus the part that its metric explains, minus the mean
    of its seed; it contains bend and chance. The bound is the larger of two losses: the upper end of the prediction
    interval of a run that ends at the bar, and the loss of such a run with the largest bend of any run that won.
    """
    often = Counter(one.seed for one in finished)
    pool = [one for one in finished if often[one.seed] > 1 or one.seed == seed]  # one run of a seed has no residual
    least = FINISHED - 1 + len({one.seed for one in pool})  # each seed's mean takes a degree of freedom
    nearest = sorted(pool, key=lambda one: abs(one.metric - bar))[: max(least, len(pool) // 2)]
    slope = _slope(finished, at)
    rests: dict[int, list[float]] = {}
    for one in nearest:
        rests.setdefault(one.seed, []).append(one.losses[at] - slope * one.metric)
    freedom = len(nearest) - len(rests)
    if seed not in rests or freedom < FINISHED - 1:
        return math.inf
    if not _foretells(pool, at):
        return math.inf
    means = {of: sum(values) / len(values) for of, values in rests.items()}
    spread = math.sqrt(sum((rest - means[of]) ** 2 for of, values in rests.items() for rest in values) / freedom)
    width = student_t.quantile(_SURE, freedom) * math.sqrt(1 + 1 / len(rests[seed])) * spread
    bends = (
        one.losses[at] - slope * one.metric - means[one.seed]
        for one in finished
        if one.seed in means and (one.won or one.metric < bar)
    )
    return means[seed] + slope * bar + max(width, max(bends, default=0.0))


def _foretells(finished: Sequence[_Finished], at: int) -> bool:
    """Whether loss and metric correlate significantly among runs on the same seed."""
    groups: dict[int, list[_Finished]] = {}
    for one in finished:
        groups.setdefault(one.seed, []).append(one)
    loss2 = metric2 = both = 0.0
    for group in groups.values():
        loss = math.fsum(one.losses[at] for one in group) / len(group)
        metric = math.fsum(one.metric for one in group) / len(group)
        loss2 += math.fsum((one.losses[at] - loss) ** 2 for one in group)
        metric2 += math.fsum((one.metric - metric) ** 2 for one in group)
        both += math.fsum((one.losses[at] - loss) * (one.metric - metric) for one in group)
    freedom = len(finished) - len(groups) - 1
    if freedom < 1 or not loss2 > 0 or not metric2 > 0:
        return False
    correlation = min(both / math.sqrt(loss2 * metric2), 1 - 1e-12)
    return correlation * math.sqrt(freedom / (1 - correlation**2)) > student_t.quantile(_RELATED, freedom)


def _slope(finished: Sequence[_Finished], at: int) -> float:
    """The slope of the loss over the metric within a seed: the median over the third of the runs furthest apart.

    Each run is compared with the run in the middle of its seed.
    """
    seeds: dict[int, list[_Finished]] = {}
    for one in finished:
        seeds.setdefault(one.seed, []).append(one)
    apart: list[tuple[float, float]] = []
    for group in seeds.values():
        middle = sorted(group, key=lambda one: one.metric)[len(group) // 2]
        apart += (
            (one.metric - middle.metric, one.losses[at] - middle.losses[at])
            for one in group
            if one.metric != middle.metric
        )
    apart.sort(key=lambda pair: -abs(pair[0]))
    ratios = sorted(loss / metric for metric, loss in apart[: -(-len(apart) // 3)])
    return max(0.0, ratios[len(ratios) // 2]) if ratios else 0.0


# ---------------------------------------------------------------------------------------------- a campaign's races


def racer_of(records: Iterable[Experiment]) -> Racer:
    """The racer for candidates of the branch head, from the campaign's records.

    If a keep's curve is incomparable with those before, only that keep and later experiments count.
    """
    known = list(records)
    line = chain(known)
    since = max((at for at, one in enumerate(line) if not one.comparable), default=0)
    alike = {one.commit for one in line[since:]}
    racer = Racer(line[0].direction if line else Direction.MINIMIZE)
    for record in known:
        own = record.commit in alike or (record.comparable and record.base in alike)
        for run in record.runs:
            if run.metric is None or run.inconclusive or not (run.commit in alike if run.commit else own):
                continue
            racer.learn(run.seed, run.losses, run.metric, won=bool(run.commit) or record.commit in alike)
    return racer


@dataclass(frozen=True, slots=True)
class Races:
    """The effect of racing in some experiments.

    Attributes:
        stopped: The number of runs that were stopped early.
        saved_seconds: The training seconds that they did not use.
        spared: The number of control runs: hopeless runs that were not stopped.
        wrong: The number of control runs that beat their threshold, so that stopping them would have been wrong.
    """

    stopped: int = 0
    saved_seconds: float = 0.0
    spared: int = 0
    wrong: int = 0


def races(records: Iterable[Experiment]) -> Races:
    """Count the effect of racing in these experiments."""
    hopeless = [(record, run) for record in records for run in record.runs if run.hopeless and not run.inconclusive]
    ended = [(record, run) for record, run in hopeless if run.stopped]
    spared = [(record, run.metric, run.bar) for record, run in hopeless if run.metric is not None]
    return Races(
        stopped=len(ended),
        saved_seconds=math.fsum(max(0.0, record.budget_seconds - run.training_seconds) for record, run in ended),
        spared=len(spared),
        wrong=sum(bar is not None and record.direction.gain(metric, bar) > 0 for record, metric, bar in spared),
    )


class Race:
    """The race of one run against its threshold.

    Args:
        racer: Knows the campaign's finished runs.
        seed: The run's seed.
        bar: The racing threshold: the metric that the run has to beat.
        spared: Whether the run is a control, which is not stopped.

    Attributes:
        hopeless: Why the run cannot reach the threshold, as one sentence; empty while it can.
    """

    def __init__(self, racer: Racer, seed: int, bar: float, spared: bool) -> None:
        self.hopeless = ""
        self.bar = bar
        self._racer = racer
        self._seed = seed
        self._spared = spared
        self._looked = -1

    def look(self, losses: LossCurve) -> str:
        """Why the run must stop now, as one sentence; empty if it may go on.

        Args:
            losses: The run's losses so far, at the checkpoints.
        """
        at = max((index for index, loss in enumerate(losses) if loss is not None), default=-1)
        loss = losses[at] if at > self._looked else None
        self._looked = max(self._looked, at)
        if loss is None or self.hopeless or not math.isfinite(self.bar):
            return ""
        limit = self._racer.limit(at, self._seed, self.bar)
        if limit is None or not loss > limit:
            return ""
        self.hopeless = (
            f"loss {loss:.4f} after {CHECKPOINTS[at]:.0%} of the budget is above {limit:.4f}, the limit for beating "
            f"{self.bar:.4g}"
        )
        return "" if self._spared else self.hopeless
