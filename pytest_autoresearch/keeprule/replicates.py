"""What a campaign's records say of its runs: observations, samples of each commit, noise, expected luck. Pure."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import lru_cache

from pytest_autoresearch.core.experiment import BASELINE, Experiment, Reason, Status
from pytest_autoresearch.core.history import chain, taken_back
from pytest_autoresearch.core.run import Role, Run
from pytest_autoresearch.keeprule.blocks import Block, Blocks, Observation
from pytest_autoresearch.keeprule.evidence import SELECTED_WEIGHT
from pytest_autoresearch.keeprule.noise import VAL_BPB_ON_A_GPU, Noise, Prior, Sample, pooled
from pytest_autoresearch.keeprule.rule import kept_by_chance

PAUSE_SECONDS = 1800  # after so long a pause, the machine may have changed
_MOST_RUNS = 1 << 16  # of which every lane's evidence has the same values, not copies of them
_SELECTED = Role.SCREEN  # candidates were selected by this run, so its metric is biased by luck


def samples(records: Iterable[Experiment]) -> dict[str, Sample]:
    """The sample of every commit, over all records; without screening and inconclusive runs."""
    found: dict[str, Sample] = {}
    seen: set[tuple[str, int]] = set()  # two lanes may have run a commit on the same seed
    for record in records:
        for run in record.runs:
            commit = run.commit or record.commit
            if run.metric is None or run.role in (_SELECTED, Role.BATCH) or run.inconclusive:
                continue
            if (commit, run.seed) in seen:
                continue
            seen.add((commit, run.seed))
            found[commit] = found.get(commit, Sample()).plus(run.metric)
    return found


def observations(records: Iterable[Experiment]) -> list[Observation]:
    """Every run that counts, with half weight if it selected its program; none of a keep that was taken back."""
    found: list[Observation] = []
    known = list(records)
    gone = taken_back(known)
    seen: set[tuple[str, Block]] = set()  # two lanes may have run a commit on the same seed
    for record in known:
        for run in record.runs:
            commit, block = run.commit or record.commit, _block(run.seed, run.block)
            if run.metric is None or not math.isfinite(run.metric) or run.inconclusive or commit in gone:
                continue
            if run.role is Role.BATCH or (commit, block) in seen:  # a program of a batch has one run and no other
                continue
            seen.add((commit, block))
            found.append(_observation(commit, block, run.metric, run.role is _SELECTED))
    return found


@lru_cache(_MOST_RUNS)
def _block(seed: int, time: str) -> Block:
    return Block(seed, time)


@lru_cache(_MOST_RUNS)
def _observation(program: str, block: Block, metric: float, selected: bool) -> Observation:
    return Observation(program, block, metric, SELECTED_WEIGHT if selected else 1.0)


def time_of(records: Iterable[Experiment], now: float) -> str:
    """The time block that a session continues; empty if the campaign's last run is too long ago, or there is none.

    Args:
        now: In seconds since the epoch.
    """
    last = max(records, key=lambda record: record.finished_at, default=None)
    if last is None or not 0 <= now - last.finished_at < PAUSE_SECONDS:
        return ""
    return last.runs[-1].block if last.runs else ""


def runs_of(records: Iterable[Experiment], commit: str) -> list[Run]:
    """Every run of a commit."""
    return [run for record in records for run in record.runs if (run.commit or record.commit) == commit]


def unmoved(records: Iterable[Experiment]) -> int:
    """How many of the last candidates in a row gave exactly their base's metric on the same seed.

    0 if the metric does not depend on the seed. In a noisy metric one such candidate is possible, for example if it
    changes code that is not reached; several in a row suggest that the edited files are not what runs.
    """
    known = list(records)
    metrics: dict[str, dict[int, float]] = {}
    for one in known:
        for run in one.runs:
            if run.metric is not None:
                metrics.setdefault(run.commit or one.commit, {})[run.seed] = run.metric
    count = 0
    for one in reversed(known):
        own, base = metrics.get(one.commit, {}), metrics.get(one.base, {})
        if one.number == BASELINE or one.commit == one.base or not own:
            break
        if len(set(base.values())) < 2 or any(base.get(seed) != metric for seed, metric in own.items()):
            break
        count += 1
    return count


def noise(known: Mapping[str, Sample], prior: Prior) -> Noise:
    """The noise, pooled over all replicates."""
    return pooled(known.values(), prior)


def levels(records: Iterable[Experiment]) -> list[float]:
    """The estimate of every keep in the order of the branch, as if each had run on the seeds of the baseline.

    An experiment's own metric is that on its own seeds, and two of them may differ by their seeds alone.
    """
    known = list(records)
    line, runs = chain(known), observations(known)
    blocks, ran = Blocks(runs), {run.program for run in runs}
    if not line or line[0].commit not in ran:
        return [one.metric for one in line]
    first = line[0]
    return [
        first.metric + blocks.contrast(one.commit, first.commit).difference if one.commit in ran else one.metric
        for one in line
    ]


def is_due(head: Experiment, records: Iterable[Experiment]) -> bool:
    """Whether a kept commit has not been run again since its keep."""
    return head.number != BASELINE and not any(run.commit == head.commit for record in records for run in record.runs)


def is_exact(baseline: Experiment) -> bool:
    """Whether the metric was the same on all seeds of the baseline."""
    return measured_noise([Sample.of(run.metric for run in baseline.own_runs if run.metric is not None)]).exact


def measured_noise(known: Iterable[Sample]) -> Noise:
    """The noise by these samples alone, without a prior, for reports. A baseline on a GPU has three runs."""
    return pooled(known, least=VAL_BPB_ON_A_GPU.baseline_runs)


def resolution(baseline: Experiment | None, prior: Prior) -> float:
    """The rounding step for metrics shown to a proposer: half a standard deviation, with one digit; 0 if unknown.

    It depends only on the baseline's runs, so that every experiment is shown with the same rounding.
    """
    metrics = [run.metric for run in baseline.own_runs if run.metric is not None] if baseline else []
    known = pooled([Sample.of(metrics)], prior)
    if len(metrics) < 2 or known.exact or not 0 < known.sd < math.inf:
        return 0.0
    return float(f"{known.sd / 2:.1g}")


@dataclass(frozen=True, slots=True)
class Luck:
    """How many of a campaign's keeps may be luck.

    Attributes:
        nothing: The expected number of keeps that are no improvement, summed from their probabilities; without simpler
            programs, which need no improvement. None if no keep has a probability.
        chance: The expected number of keeps if no proposal changed anything.
        tried: The number of proposals that were judged.
    """

    nothing: float | None
    chance: float
    tried: int


def luck(records: Iterable[Experiment]) -> Luck:
    """The expected luck in these records."""
    known = list(records)
    keeps = [
        one
        for one in chain(known)[1:]
        if one.decision.decided is not Reason.SIMPLER and one.decision.probability is not None
    ]
    judged = [one for one in known if one.decision.rule and one.number != BASELINE]
    return Luck(
        math.fsum(1 - (one.decision.probability or 0.0) for one in keeps) if keeps else None,
        math.fsum(kept_by_chance(one.decision.rule) for one in judged),
        len(judged),
    )


def tally(records: Iterable[Experiment]) -> tuple[int, int]:
    """The number of kept and the number of judged proposals, without crashes."""
    judged = [one.verdict for one in records if one.verdict and one.number != BASELINE]
    done = [verdict for verdict in judged if verdict.status is not Status.CRASH]
    return sum(verdict.status is Status.KEEP for verdict in done), len(done)
