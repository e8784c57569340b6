"""A campaign as one point for each experiment; the page's chart and `progress.png` draw them. Pure: takes records.

Knows nothing of colours, axes or files.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from pytest_autoresearch.core.experiment import BASELINE, Direction, Experiment, Status
from pytest_autoresearch.core.history import chain
from pytest_autoresearch.core.run import Role, Run
from pytest_autoresearch.keeprule import replicates
from pytest_autoresearch.keeprule.noise import Noise

MOST_DECIMALS = 12


@dataclass(frozen=True, slots=True)
class Point:
    """One experiment.

    Attributes:
        number: The experiment's number.
        status: Its verdict.
        metric: The estimate of its metric; None if there is none.
        error: Standard error of `metric`; None after a single run or if the noise is unknown.
        best: The estimate of the branch's head after this experiment, on the seeds of the baseline; None before the
            baseline.
        gain: How much better it was than the best before it; None if not recorded.
        text: Its description.
    """

    number: int
    status: Status
    metric: float | None
    error: float | None
    best: float | None
    gain: float | None
    text: str


def points(records: Sequence[Experiment]) -> list[Point]:
    """One point for each judged record, in the same order."""
    noise = noise_of(records)
    levels = dict(zip([keep.number for keep in chain(records)], replicates.levels(records), strict=True))
    best = None
    found = []
    for record in records:
        if record.verdict is None:
            continue
        metric = estimate(record)
        best = levels.get(record.number, best)
        found.append(
            Point(
                record.number, record.verdict.status, metric,
                error_of(record, noise) if metric is not None else None, best, record.verdict.gain,
                record.proposal.description,
            )
        )  # fmt: skip
    return found


def noise_of(records: Sequence[Experiment]) -> Noise:
    """The noise of one run, from the campaign's own repeated runs alone."""
    return replicates.measured_noise(replicates.samples(records).values())


def counted(record: Experiment) -> list[Run]:
    """The valid runs of its own commit: those with a metric that are not inconclusive."""
    return [run for run in record.own_runs if run.metric is not None and not run.inconclusive]


def estimate(record: Experiment) -> float | None:
    """The metric; None after a crash or if it is not finite."""
    if record.verdict is not None and record.verdict.status is Status.CRASH:
        return None
    return record.metric if math.isfinite(record.metric) else None


def error_of(record: Experiment, noise: Noise) -> float | None:
    """Standard error of a mean over several runs, from the pooled spread of all repeats."""
    runs = counted(record)
    if len(runs) < 2 or not noise.degrees or not 0 < noise.sd < math.inf:
        return None
    looks = sum(run.role is Role.CONFIRM for run in runs)
    if looks and any(run.role is Role.SCREEN for run in runs):  # the first run has half weight
        return noise.sd * math.sqrt(0.25 + looks) / (0.5 + looks)
    return noise.sd / math.sqrt(len(runs))


def decimals(records: Sequence[Experiment], noise: Noise) -> int:
    """How many decimals to show: down to two digits of the noise; without known noise, six significant digits."""
    finite = [abs(record.metric) for record in records if math.isfinite(record.metric) and record.metric]
    size = max(finite[:1], default=1.0)
    scale = noise.sd / 10 if 0 < noise.sd < math.inf else size / 1e5
    return min(max(0, -math.floor(math.log10(scale) + 1e-6)), MOST_DECIMALS) if scale > 0 else 6


def limits(shown: Sequence[Point], direction: Direction) -> tuple[float, float]:
    """The range of metrics to draw. It shows the whole line of the best, and is not stretched by outliers.

    Points worse than the start and than nine in ten others are drawn at the edge.
    """
    values = sorted(point.metric for point in shown if point.metric is not None)
    line = [point.best for point in shown if point.best is not None]
    if not values:
        return 0.0, 1.0
    sign = 1 if direction is Direction.MINIMIZE else -1
    ordered = sorted(sign * value for value in values)
    start, end = (sign * line[0], sign * line[-1]) if line else (ordered[-1], ordered[0])
    worst = max(start, ordered[min(len(ordered) - 1, int(0.9 * len(ordered)))])
    worst = min(worst, start + 3 * (start - end)) if start > end else worst
    best = min(end, ordered[0])
    room = 0.06 * (worst - best) or 0.01 * abs(best) or 1.0
    low, high = sign * (best - room), sign * (worst + room)
    return min(low, high), max(low, high)


def kept(shown: Sequence[Point]) -> int:
    """How many were kept, not counting the baseline."""
    return sum(point.status is Status.KEEP and point.number != BASELINE for point in shown)
