"""What a campaign knows of each commit that was run more than once, and of the noise. Pure: it is given records."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from pytest_autoresearch.core.experiment import BASELINE, Direction, Experiment, Reason, Status
from pytest_autoresearch.core.history import chain
from pytest_autoresearch.core.run import Role, Run
from pytest_autoresearch.keeprule.noise import Noise, Prior, Sample, pooled
from pytest_autoresearch.keeprule.rule import Incumbent, Rule, kept_by_chance

_SELECTED = Role.SCREEN  # a run that a candidate was chosen by says more of luck than of the program


def samples(records: Iterable[Experiment]) -> dict[str, Sample]:
    """The runs of every commit that count for an estimate, over all records, by commit."""
    found: dict[str, Sample] = {}
    seen: set[tuple[str, int]] = set()  # two lanes may have run a commit on the same seed
    for record in records:
        for run in record.runs:
            commit = run.commit or record.commit
            if run.metric is None or run.role is _SELECTED or run.inconclusive or (commit, run.seed) in seen:
                continue
            seen.add((commit, run.seed))
            found[commit] = found.get(commit, Sample()).plus(run.metric)
    return found


def run_count(records: Iterable[Experiment], commit: str) -> int:
    """How often a commit was run so that it counts: the next run of it takes the seed after."""
    return sum(
        (run.commit or record.commit) == commit and not run.inconclusive for record in records for run in record.runs
    )


def runs_of(records: Iterable[Experiment], commit: str) -> list[Run]:
    """Every run of a commit."""
    return [run for record in records for run in record.runs if (run.commit or record.commit) == commit]


def noise(known: Mapping[str, Sample], prior: Prior) -> Noise:
    """What all replicates say together."""
    return pooled(known.values(), prior)


def standing(head: Experiment, records: Iterable[Experiment], known: Mapping[str, Sample], rule: Rule) -> Incumbent:
    """The branch head as what has to be beaten: by its runs on fresh seeds, else by the one that it was kept for."""
    sample = known.get(head.commit, Sample())
    again = any(run.commit == head.commit for record in records for run in record.runs)
    due = rule.renew and head.number != BASELINE and not again
    return Incumbent(sample.runs, sample.mean, due) if sample.runs else Incumbent(1, head.metric, due)


def resolution(baseline: Experiment | None, prior: Prior) -> float:
    """The steps in which a proposer is shown metrics: half a standard deviation, with one digit; 0 where none is known.

    By the baseline's runs alone, so that what was shown once is shown in the same way all night.
    """
    metrics = [run.metric for run in baseline.own_runs if run.metric is not None] if baseline else []
    known = pooled([Sample.of(metrics)], prior)
    if len(metrics) < 2 or known.exact or not 0 < known.sd < math.inf:
        return 0.0
    return float(f"{known.sd / 2:.1g}")


def reference(records: Iterable[Experiment], known: Mapping[str, Sample]) -> float | None:
    """The best estimate that any incumbent had: simpler programs may together cost only so much against it."""
    line = chain(records)
    found = [sample.mean if (sample := known.get(one.commit)) else one.metric for one in line]
    if not found:
        return None
    return min(found) if line[0].direction is Direction.MINIMIZE else max(found)


@dataclass(frozen=True, slots=True)
class Luck:
    """How far a campaign's keeps can be believed.

    Attributes:
        nothing: How many of them are expected to be no improvement, each by its own evidence; simpler programs, which
            need be none, aside. None where none was asked for evidence.
        chance: How many would be kept by chance alone, had no proposal changed anything.
        tried: Of so many proposals.
    """

    nothing: float | None
    chance: float
    tried: int


def luck(records: Iterable[Experiment]) -> Luck:
    """What is to be said beside the number of keeps."""
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
    """How many proposals were kept, and how many were judged, crashes aside."""
    judged = [one.verdict for one in records if one.verdict and one.number != BASELINE]
    done = [verdict for verdict in judged if verdict.status is not Status.CRASH]
    return sum(verdict.status is Status.KEEP for verdict in done), len(done)
