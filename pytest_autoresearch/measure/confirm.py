"""Makes the runs of one experiment that the keep rule asks for, of the candidate and of the incumbent.

Knows the rule and the records; a callback (`RunOnce`) makes the runs.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from dataclasses import replace
from typing import Protocol

from pytest_autoresearch.core.experiment import BASELINE, Decision, Direction, Experiment, Reason
from pytest_autoresearch.core.history import chain
from pytest_autoresearch.core.run import CrashClass, Role, Run
from pytest_autoresearch.keeprule import replicates
from pytest_autoresearch.keeprule.decision import Action, Step, needed, next_action
from pytest_autoresearch.keeprule.evidence import Evidence
from pytest_autoresearch.keeprule.noise import Prior
from pytest_autoresearch.keeprule.rule import Rule

_MOST_FAILED = 2  # crashed incumbent runs for one candidate, after which the incumbent is not run again


class RunOnce(Protocol):
    """Runs a commit. Returns one or more runs; the last one counts.

    Args:
        commit: The commit to run.
        seed: The seed; None for one that the campaign has not used.
        role: The purpose of the run.
        below: The scorer probes a model whose metric is better than this; None: it does not probe.
        bar: The racing threshold; None if the run is not raced.
    """

    def __call__(
        self, commit: str, seed: int | None, role: Role, below: float | None = None, bar: float | None = None
    ) -> tuple[Run, ...]: ...


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
    simplify: bool = False, time: str = "",
) -> Experiment:  # fmt: skip
    """The experiment with its runs and the rule's decision.

    Args:
        simplify: Whether a simpler program is kept if it is no worse.
        time: Names the present; see `Run.block`.
    """
    known = list(records)
    evidence = _evidence(experiment, head, known, rule, prior, simplify, time)
    runs = experiment.runs  # of the commit that it had before it was merged into a later head
    failed = 0
    while (action := next_action(evidence)).step in (Step.RUN_CANDIDATE, Step.RUN_INCUMBENT):
        if action.step is Step.RUN_INCUMBENT:
            made = run(head.commit, action.seed, Role.INCUMBENT, _seen(head, known))
            last = made[-1]
            if last.crash is not None and last.crash.kind is CrashClass.REJECTED:
                return replace(experiment, runs=runs + made, decision=Decision(evidence.best))
            if last.metric is not None and math.isfinite(last.metric):
                evidence = evidence.plus_incumbent(last.seed, last.metric)
            else:
                failed += 1
                evidence = replace(evidence, due=False, alone=failed >= _MOST_FAILED)
        else:
            role = Role.CONFIRM if evidence.runs else Role.SCREEN
            below, bar = _bars(evidence, action.seed)
            made = run(experiment.commit, action.seed, role, below, bar)
            last = made[-1]
            if last.stopped:
                decision = Decision(
                    evidence.best, math.inf, Reason.HOPELESS, _stopped(action, role, last), rule=rule.name
                )
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


def _seen(head: Experiment, records: Iterable[Experiment]) -> float | None:
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
