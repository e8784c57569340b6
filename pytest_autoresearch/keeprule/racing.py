"""Racing: whether a run that is under way can still show what it has to, by how the campaign's finished runs went.

Pure: losses in, yes or no out. Knows nothing of how a run is ended, nor where its losses come from.
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

FINISHED = 8  # runs to learn from before anything is stopped
SPARED = 10  # of so many hopeless runs, one is let finish
_SURE = 0.997  # with 0.99, more than one in fifty true gains was stopped in simulations
_RELATED = 0.95


# What a changed line speaks of where a curve bends elsewhere or is in another unit: batches, schedules, the loss, how
# and when it is printed.
_DISTORTS = re.compile(
    r"batch|accum|schedul|warm|cool|anneal|decay|lrm|loss|entropy|nll|smooth|seq_len|sequence_length|print|budget",
    re.IGNORECASE,
)


def distorts(changed: Iterable[str]) -> bool:
    """Whether these lines, added or removed, make a loss curve that cannot be compared with the one before.

    By their words, and rather once too often: such a run is trained to its end, and nothing worse.
    """
    return any(_DISTORTS.search(line) for line in changed)


def is_spared(number: int) -> bool:
    """Whether the experiment's runs are let finish though they are hopeless: one experiment in ten, always the same."""
    return int.from_bytes(hashlib.sha256(str(number).encode()).digest()[:4], "big") % SPARED == 0


@dataclass(frozen=True, slots=True)
class _Finished:
    """A run that went to its end.

    Attributes:
        seed: The data came in an order that is the seed's.
        losses: At the checkpoints; a NaN where there is none.
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
    """

    def __init__(self, direction: Direction = Direction.MINIMIZE) -> None:
        self._sign = 1 if direction is Direction.MINIMIZE else -1
        self._finished: list[_Finished] = []

    def learn(self, seed: int, losses: LossCurve, metric: float, won: bool) -> None:
        """A run went to its end: the baseline's or an incumbent's, which have won, or after its verdict a candidate's.

        A curve that cannot be compared with the others is not for here.
        """
        if math.isfinite(metric) and len(losses) == len(CHECKPOINTS):
            known = tuple(math.nan if loss is None else loss for loss in losses)
            self._finished.append(_Finished(seed, known, self._sign * metric, won))

    def limit(self, at: int, seed: int, bar: float) -> float | None:
        """The loss at a checkpoint beyond which a run on that seed is hopeless; None while too little is known.

        Args:
            at: Which of the checkpoints.
            bar: The metric that it has to beat; see `rule.needed`.
        """
        finished = [one for one in self._finished if math.isfinite(one.losses[at])]
        if len(finished) < FINISHED:
            return None
        limit = _bound(finished, at, seed, self._sign * bar)
        return limit if limit < math.inf else None


def _bound(finished: Sequence[_Finished], at: int, seed: int, bar: float) -> float:
    """The loss at a checkpoint beyond which a run will not end at the bar.

    Of the finished runs those count that ended near the bar, half of them all: a program that is far worse shows it in
    its own way, and with its own noise. From each is taken what its metric explains of its loss; what is left, less the
    mean of its seed, is its bend and chance. The bound is the upper end of the prediction interval of a run that ends
    at the bar, or where a run with the largest bend of any that won would be, whichever is later.
    """
    often = Counter(one.seed for one in finished)
    pool = [one for one in finished if often[one.seed] > 1 or one.seed == seed]  # alone on its seed it shows nothing
    nearest = sorted(pool, key=lambda one: abs(one.metric - bar))[: max(FINISHED, len(pool) // 2)]
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
    """Whether a lower loss went with a better metric so far: of runs on the same seed, and hardly by chance."""
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


# ---------------------------------------------------------------------------------------------- a campaign's races


def racer_of(records: Iterable[Experiment]) -> Racer:
    """What a campaign's records teach about runs of the branch head and of what is made from it.

    A keep whose curve cannot be compared with those before begins anew: only what was made from it counts.
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
    """What racing did in some experiments.

    Attributes:
        stopped: Runs that were ended early.
        saved_seconds: Of training, that they did not use.
        spared: Hopeless runs that were let finish, one experiment in ten.
        wrong: How many of those then showed what they had to.
    """

    stopped: int = 0
    saved_seconds: float = 0.0
    spared: int = 0
    wrong: int = 0


def races(records: Iterable[Experiment]) -> Races:
    """What racing did in these experiments."""
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
    """One run against what it has to come to.

    Args:
        racer: What the campaign's finished runs teach.
        seed: The run's.
        bar: The metric that it has to beat.
        spared: Whether it is let finish all the same.

    Attributes:
        hopeless: Why it cannot come to that, in a sentence; empty while it can.
    """

    def __init__(self, racer: Racer, seed: int, bar: float, spared: bool) -> None:
        self.hopeless = ""
        self.bar = bar
        self._racer = racer
        self._seed = seed
        self._spared = spared
        self._looked = -1

    def look(self, losses: LossCurve) -> str:
        """Why the run is to be ended here; empty where it may go on.

        Args:
            losses: Its curve so far.
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
            f"loss {loss:.4f} after {CHECKPOINTS[at]:.0%} of the budget, where {limit:.4f} is the most to beat "
            f"{self.bar:.4g}"
        )
        return "" if self._spared else self.hopeless
