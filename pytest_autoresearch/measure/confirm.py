"""Makes the runs of one experiment that the keep rule asks for, of the candidate and of the incumbent.

Knows the rule and the records; a callback (`RunOnce`) makes the runs.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import replace
from typing import Protocol

from pytest_autoresearch.core.experiment import Decision, Experiment, Reason
from pytest_autoresearch.core.run import Role, Run
from pytest_autoresearch.keeprule import replicates
from pytest_autoresearch.keeprule.noise import Noise, Prior, Sample
from pytest_autoresearch.keeprule.rule import Action, Evidence, Incumbent, Rule, Step, needed, next_action

SEED = 42
_MOST_FAILED = 2  # crashed incumbent runs for one candidate, after which the incumbent is not run again


class RunOnce(Protocol):
    """Runs a commit. Returns one or more runs, of which the last one counts.

    Args:
        commit: The commit to run.
        seed: The seed.
        role: The purpose of the run.
        below: The scorer probes a model whose metric is better than this; None: it does not probe.
        bar: The racing threshold; None if the run is not raced.
    """

    def __call__(
        self, commit: str, seed: int, role: Role, below: float | None = None, bar: float | None = None
    ) -> tuple[Run, ...]: ...


def baseline(experiment: Experiment, rule: Rule, prior: Prior, run: RunOnce) -> Experiment:
    """The baseline with enough runs to estimate the noise; with one run if one run decides."""
    runs: tuple[Run, ...] = ()
    for count in range(prior.baseline_runs if rule.looks else 1):
        runs += run(experiment.commit, SEED + count, Role.BASELINE)
        if runs[-1].metric is None:
            break
    return replace(experiment, runs=runs)


def candidate(
    experiment: Experiment, head: Experiment, records: Iterable[Experiment], rule: Rule, prior: Prior, run: RunOnce,
    simplify: bool = False,
) -> Experiment:  # fmt: skip
    """The experiment with its runs and the rule's decision.

    Args:
        simplify: Whether a simpler program is kept if it is no worse.
    """
    known = list(records)
    # A repeated candidate gets new seeds, because it was selected by its old ones.
    asked = max(replicates.run_count(known, commit) for commit in (experiment.commit, experiment.proposal.repeats))
    trial = _Trial(head, known, rule, prior, simplify and experiment.simpler)
    runs: tuple[Run, ...] = ()
    while (action := trial.next()).step in (Step.RUN_CANDIDATE, Step.RUN_INCUMBENT):
        if action.step is Step.RUN_INCUMBENT:
            seed = SEED + replicates.run_count(known, head.commit) + trial.beside
            made = run(head.commit, seed, Role.INCUMBENT)
            trial.hear_incumbent(made[-1].metric)
        else:
            role = Role.CONFIRM if trial.screen is not None else Role.SCREEN
            seed = SEED + asked + trial.own
            made = run(experiment.commit, seed, role, trial.incumbent.mean, trial.bar)
            if made[-1].stopped:
                said = _stopped(action, role, made[-1])
                decision = Decision(trial.incumbent.mean, math.inf, Reason.HOPELESS, said, rule=rule.name)
                return replace(experiment, runs=runs + made, decision=decision)
            if made[-1].metric is None:
                return replace(experiment, runs=runs + made, decision=Decision(trial.incumbent.mean))
            trial.hear(made[-1].metric)
        runs += made
    decision = Decision(action.best, action.margin, rule=rule.name)
    if rule.looks:
        p = action.p if math.isfinite(action.p) else None
        decision = replace(decision, decided=action.reason, evidence=action.sentence, probability=p)
    return replace(experiment, runs=runs, decision=decision)


def _stopped(action: Action, role: Role, run: Run) -> str:
    """The evidence sentence of a run that was stopped early."""
    said = f"its {role} run was stopped: {run.hopeless}"
    return said if role is Role.SCREEN else f"{action.comparison}; {said}"


class _Trial:
    """The evidence as it grows."""

    def __init__(
        self, head: Experiment, records: list[Experiment], rule: Rule, prior: Prior, simpler: bool
    ) -> None:  # fmt: skip
        known = replicates.samples(records)
        self.incumbent: Incumbent = replicates.standing(head, records, known, rule)
        self.screen: float | None = None
        self.own = self.beside = 0
        self._rule = rule
        self._noise: Noise = replicates.noise(known, prior)
        self._sample = known.get(head.commit, Sample())
        self._direction = head.direction
        self._confirmations: tuple[float, ...] = ()
        self._fresh = Sample()
        self._renewed = self._failed = 0
        self._kept, self._tried = replicates.tally(records)
        self._simpler = simpler
        self._reference = replicates.reference(records, known)

    def next(self) -> Action:
        """The next step."""
        return next_action(self._evidence)

    @property
    def bar(self) -> float | None:
        """The racing threshold of the candidate's next run; None if one run decides, because its metric is needed."""
        return needed(self._evidence) if self._rule.looks and not self._noise.exact else None

    @property
    def _evidence(self) -> Evidence:
        return Evidence(
            self._rule, self._direction, self._noise, self.incumbent, self.screen, self._confirmations,
            self._renewed, self._simpler, self._reference, self._kept, self._tried,
        )  # fmt: skip

    def hear(self, metric: float | None) -> None:
        """Add the metric of the candidate's next run."""
        assert metric is not None
        self.own += 1
        if self.screen is None:
            self.screen = metric
            return
        self._confirmations += (metric,)
        self._renewed = 0
        after = self._fresh.plus(metric)
        self._noise, self._fresh = self._noise.plus(self._fresh, after), after

    def hear_incumbent(self, metric: float | None) -> None:
        """Add the metric of the incumbent's next run; None if it crashed, and the candidate is judged without it."""
        self.beside += 1
        self._renewed += 1
        if metric is None:
            self._failed += 1
            self.incumbent = replace(self.incumbent, due=False)
            if self._failed >= _MOST_FAILED:
                self._rule = replace(self._rule, incumbent_runs=0)
            return
        after = self._sample.plus(metric)
        self._noise, self._sample = self._noise.plus(self._sample, after), after
        self.incumbent = Incumbent(after.runs, after.mean)
