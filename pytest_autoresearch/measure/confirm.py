"""Makes the runs of one experiment that the keep rule asks for, of the candidate and of the incumbent.

Knows the rule and the records; a callback (`RunOnce`) makes the runs. Another one is told which runs may come next, so
that they can be made at the same time: the decisions are the same, because results count in the order of the rule.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from typing import Protocol

from pytest_autoresearch.core.experiment import BASELINE, Decision, Direction, Experiment, Reason
from pytest_autoresearch.core.history import chain
from pytest_autoresearch.core.run import CrashClass, Role, Run
from pytest_autoresearch.keeprule import replicates
from pytest_autoresearch.keeprule.decision import Action, Step, following, needed, next_action
from pytest_autoresearch.keeprule.evidence import Evidence
from pytest_autoresearch.keeprule.noise import Prior
from pytest_autoresearch.keeprule.rule import Rule

_MOST_FAILED = 2  # crashed incumbent runs for one candidate, after which the incumbent is not run again


@dataclass(frozen=True, slots=True)
class Wanted:
    """A run that the rule asks for, or will ask for.

    Attributes:
        commit: The commit to run.
        seed: The seed.
        role: The purpose of the run.
        below: The scorer probes a model whose metric is better than this; None: it does not probe.
        bar: The racing threshold; None if the run is not raced.
    """

    commit: str
    seed: int
    role: Role
    below: float | None = None
    bar: float | None = None


class RunOnce(Protocol):
    """Makes a run. Returns one or more runs; the last one counts.

    Args:
        wanted: The run.
        next_ones: The runs that the rule will ask for after it if it goes on, in order. Read lazily: it takes time.
    """

    def __call__(self, wanted: Wanted, next_ones: Iterable[Wanted]) -> tuple[Run, ...]: ...


def baseline(
    experiment: Experiment, rule: Rule, prior: Prior, run: Callable[[int], tuple[Run, ...]]
) -> Experiment:  # fmt: skip
    """The baseline with enough runs to estimate the noise; with one run if one run decides.

    Args:
        run: Runs the baseline so many times, side by side if it can, and on no seed twice. A crash ends that early.
    """
    runs = run(1)  # alone: the limits of the others come from it
    if rule.looks and runs[-1].metric is not None:
        runs += run(prior.baseline_runs - 1)
    return replace(experiment, runs=runs)


def candidate(
    experiment: Experiment, head: Experiment, records: Iterable[Experiment], rule: Rule, prior: Prior, run: RunOnce,
    draw: Callable[[], int], simplify: bool = False, time: str = "",
) -> Experiment:  # fmt: skip
    """The experiment with its runs and the rule's decision.

    Args:
        draw: Gives a seed that the campaign has not used.
        simplify: Whether a simpler program is kept if it is no worse.
        time: Names the present; see `Run.block`.
    """
    known = list(records)
    evidence = _evidence(experiment, head, known, rule, prior, simplify, time)
    runs = experiment.runs  # of the commit that it had before it was merged into a later head
    failed = 0
    seeds = _Seeds(draw)
    seen_best = seen(head, known)

    def later(action: Action) -> Iterator[Wanted]:
        for one in following(action, seeds.later()):
            assert one.seed is not None
            if one.step is Step.RUN_INCUMBENT:
                yield Wanted(head.commit, one.seed, Role.INCUMBENT, seen_best)
            else:  # how good it has to be is not known yet, so it is probed in any case, and not raced
                yield Wanted(experiment.commit, one.seed, _role(one.evidence), experiment.direction.worst)

    while (action := next_action(evidence)).step in (Step.RUN_CANDIDATE, Step.RUN_INCUMBENT):
        seed = seeds.next() if action.seed is None else action.seed
        if action.step is Step.RUN_INCUMBENT:
            wanted = Wanted(head.commit, seed, Role.INCUMBENT, seen_best)
        else:
            wanted = Wanted(experiment.commit, seed, _role(evidence), *_bars(evidence, action.seed))
        evidence = replace(evidence)  # without what was computed from all runs: it would be in memory during the run
        action = replace(action, evidence=evidence)
        made = run(wanted, later(replace(action, seed=seed)))
        last = made[-1]
        if action.step is Step.RUN_INCUMBENT:
            if last.crash is not None and last.crash.kind is CrashClass.REJECTED:
                return replace(experiment, runs=runs + made, decision=Decision(evidence.best))
            if last.metric is not None and math.isfinite(last.metric):
                evidence = evidence.plus_incumbent(last.seed, last.metric)
            else:
                failed += 1
                evidence = replace(evidence, due=False, alone=failed >= _MOST_FAILED)
        else:
            if last.stopped:
                said = _stopped(action, wanted.role, last)
                decision = Decision(evidence.best, math.inf, Reason.HOPELESS, said, rule=rule.name)
                return replace(experiment, runs=runs + made, decision=decision)
            if last.metric is None:
                return replace(experiment, runs=runs + made, decision=Decision(evidence.best))
            evidence = evidence.plus(last.seed, last.metric)
        runs += made
    decision = Decision(action.best, action.margin, rule=rule.name)
    if rule.looks:
        p = action.p if math.isfinite(action.p) else None
        decision = replace(decision, decided=action.reason, evidence=action.sentence, probability=p)
    return replace(experiment, runs=runs, decision=decision)


class _Seeds:
    """New seeds, in the order in which the rule asks for them; each is drawn once."""

    def __init__(self, draw: Callable[[], int]) -> None:
        self._draw = draw
        self._drawn: list[int] = []
        self._used = 0

    def next(self) -> int:
        """The next one, which is used now."""
        seed = next(self.later())
        self._used += 1
        return seed

    def later(self) -> Iterator[int]:
        """The next ones."""
        for place in itertools.count(self._used):
            if place == len(self._drawn):
                self._drawn.append(self._draw())
            yield self._drawn[place]


def _role(evidence: Evidence) -> Role:
    """Of the candidate's next run."""
    return Role.CONFIRM if evidence.runs else Role.SCREEN


def _evidence(
    experiment: Experiment, head: Experiment, records: list[Experiment], rule: Rule, prior: Prior, simplify: bool,
    time: str,
) -> Evidence:  # fmt: skip
    """The evidence before the candidate's first run."""
    known = tuple(replicates.observations(records))
    # A repeated candidate gets other seeds, because it was selected by its old ones.
    before = {experiment.commit, experiment.proposal.repeats}
    earlier = {run.seed for run in experiment.runs if run.role is not Role.INCUMBENT}
    kept, tried = replicates.tally(records)
    return Evidence(
        rule, head.direction, known, head.commit, experiment.commit,
        prior=prior,
        exact=replicates.noise(replicates.samples(records), prior).exact,
        time=time,
        number=experiment.number,
        line=tuple(one.commit for one in chain(records)),
        avoided=frozenset({*earlier, *(one.block.seed for one in known if one.program in before)}),
        due=rule.renew and replicates.is_due(head, records),
        simpler=simplify and experiment.simpler,
        kept=kept,
        tried=tried,
    )  # fmt: skip


def _bars(evidence: Evidence, seed: int | None) -> tuple[float, float | None]:
    """The metric below which the scorer probes the model, and the racing threshold if the run is raced.

    Every model that can be kept is probed.
    """
    if seed is None:
        return evidence.standing, None
    best, bar = evidence.plus(seed, 0.0).standing, needed(evidence, seed)
    below = best
    if math.isfinite(bar):
        below = max(best, bar) if evidence.direction is Direction.MINIMIZE else min(best, bar)
    return below, None if evidence.single else bar


def seen(head: Experiment, records: Iterable[Experiment]) -> float | None:
    """The best metric of the incumbent so far: a run with a better one is always probed. None for the baseline.

    The baseline is trusted. A program that is no longer as it was when it was kept has another metric than before.
    """
    if head.number == BASELINE:
        return None
    runs = replicates.runs_of(records, head.commit)
    seen = [run.metric for run in runs if run.metric is not None and not run.inconclusive]
    return (min if head.direction is Direction.MINIMIZE else max)(seen, default=head.direction.worst)


def _stopped(action: Action, role: Role, run: Run) -> str:
    """The evidence sentence of a run that was stopped early."""
    said = f"its {role} run was stopped: {run.hopeless}"
    return said if role is Role.SCREEN else f"{action.comparison}; {said}"
