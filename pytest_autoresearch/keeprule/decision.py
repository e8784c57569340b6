"""The keep rule's decisions: from the evidence so far, which run comes next, or what the verdict is.

Pure and without state: the same evidence gives the same answer. Campaigns, simulations and tests use this same code.
Knows nothing of how a run is made.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from enum import StrEnum

from pytest_autoresearch.core.experiment import Direction, Reason
from pytest_autoresearch.keeprule import student_t
from pytest_autoresearch.keeprule.blocks import Blocks, Contrast
from pytest_autoresearch.keeprule.evidence import Evidence
from pytest_autoresearch.keeprule.noise import EXACT

SIMPLER_LOOKS = 6  # it takes more runs to show "not worse" than "better"
_SIMPLER_P = 0.95
_SIMPLER_FUTILE_P = 0.4
_COUNTS = ("no", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")


class Step(StrEnum):
    """The next step."""

    RUN_CANDIDATE = "run the candidate"
    RUN_INCUMBENT = "run the incumbent"
    KEEP = "keep"
    DROP = "drop"


@dataclass(frozen=True, slots=True)
class Action:
    """The next step, and its reason.

    Attributes:
        step: The step.
        evidence: The evidence that the decision is based on.
        reason: The reason of a verdict; None if the step is a run.
        margin: The gain that a keep needs. Minimising, the candidate is kept exactly if `metric < best - margin`;
            maximising, if `metric > best + margin`.
        seed: The seed of the run that is the next step; None if it needs a seed that the campaign has not used.
    """

    step: Step
    evidence: Evidence
    reason: Reason | None = None
    margin: float = 0.0
    seed: int | None = None

    @property
    def metric(self) -> float:
        """The candidate's estimate."""
        return self.evidence.metric

    @property
    def best(self) -> float:
        """The incumbent's estimate on the candidate's seeds."""
        return self.evidence.best

    @property
    def p(self) -> float:
        """The probability that the candidate is better, by all of its runs."""
        return self.evidence.p

    @property
    def comparison(self) -> str:
        """The two estimates, such as `0.9684 against 0.9691 on the same two seeds ± 0.0002`.

        The last number is the standard error of their difference.
        """
        error = self.evidence.contrast.error
        noisy = 0 < error < math.inf
        places = f".{min(max(0, -math.floor(math.log10(error))), 12)}f" if noisy else ".7g"
        seeds = 0 if self.evidence.single else self.evidence.common_seeds
        count = _COUNTS[seeds] if seeds < len(_COUNTS) else seeds
        where = f" on the same {count} seeds" if seeds > 1 else " on the same seed" * seeds
        return f"{self.metric:{places}} against {self.best:{places}}{where}" + (f" ± {error:{places}}" if noisy else "")

    @property
    def sentence(self) -> str:
        """The evidence as one sentence for people."""
        return _sentence(self)


def next_action(evidence: Evidence) -> Action:
    """Decide the next step.

    The caller makes the run, adds it to the evidence, and calls again.
    """
    if evidence.due and not evidence.single:
        return Action(Step.RUN_INCUMBENT, evidence, seed=_renewal_seed(evidence))
    if not evidence.runs:
        return _next_run(evidence)
    if not math.isfinite(evidence.metric):
        return Action(Step.DROP, evidence, Reason.NOT_FINITE, math.inf)
    if evidence.renewed:  # a run of the incumbent is not a look
        return _next_run(evidence)
    looks = evidence.looks
    if evidence.single or not looks:
        margin = _screen_margin(evidence)
        if not _beats(evidence, margin):
            return Action(Step.DROP, evidence, Reason.REGRESSION, margin)
        if evidence.single:
            return Action(Step.KEEP, evidence, Reason.IMPROVED if _beats(evidence, 0.0) else Reason.SIMPLER, margin)
        return _next_run(evidence)
    error, degrees = evidence.contrast.error, evidence.contrast.degrees
    better, margin = _margins(evidence, looks, error, degrees)
    if _beats(evidence, margin):
        return Action(Step.KEEP, evidence, Reason.IMPROVED if _beats(evidence, better) else Reason.SIMPLER, margin)
    if looks >= _looks(evidence) or not _beats(evidence, _futility(evidence, looks, error, degrees)):
        return Action(Step.DROP, evidence, Reason.WITHIN_NOISE, margin)
    return _next_run(evidence)


def following(action: Action, fresh: Iterator[int]) -> Iterator[Action]:
    """The runs that the rule will ask for after this one if it goes on, in order.

    They end with the first confirmation that an earlier result can make unnecessary. Nothing follows a first run,
    because most candidates are dropped after it.

    Args:
        action: A run, with its seed.
        fresh: Seeds that the campaign has not used.
    """
    confirmations = 0
    while action.seed is not None:
        if action.step is Step.RUN_INCUMBENT:
            evidence = action.evidence.plus_incumbent(action.seed, 0.0)  # no seed depends on a metric
        else:
            evidence = action.evidence.plus(action.seed, 0.0)
            confirmations += 1
            if confirmations == 2 or not 0 < evidence.looks < _looks(evidence):
                return
        action = _next_run(evidence)
        if action.seed is None:
            action = replace(action, seed=next(fresh))
        yield action


def needed(evidence: Evidence, seed: int) -> float:
    """The racing threshold: the metric that the candidate's next run has to beat, or the candidate is dropped.

    It is exact for the first run. For a confirmation, the components of variance are those of the evidence before it.

    Args:
        evidence: The evidence before that run.
        seed: The seed of that run.
    """
    if evidence.single:
        best, margin = evidence.plus(seed, 0.0).standing, _screen_margin(evidence)
        return best - margin if evidence.direction is Direction.MINIMIZE else best + margin
    components = evidence.components

    def after(metric: float) -> tuple[Evidence, Contrast]:
        grown = evidence.plus(seed, metric)
        runs = Blocks((*grown.known, *grown.runs), evidence.prior, components)
        return grown, runs.contrast(evidence.candidate, evidence.incumbent)

    # The gain is an affine function of the next run's metric.
    low = evidence.standing
    grown, first = after(low)
    if not evidence.runs:
        margin = _screen_margin(evidence)
    else:
        margin = _margins(evidence, grown.looks, first.error, first.degrees)[1]
        if grown.looks < _looks(evidence):
            margin = min(margin, _futility(evidence, grown.looks, first.error, first.degrees))
    unit = first.error or components.residual or abs(low) or 1.0
    slope = (after(low + unit)[1].difference - first.difference) / unit
    sought = -margin if evidence.direction is Direction.MINIMIZE else margin
    return low + (sought - first.difference) / slope if slope else math.nan


def simplification_left(evidence: Evidence) -> float:
    """How much worse than the campaign's best incumbent simpler programs may still make the incumbent, in its unit.

    At zero or less, simpler programs are judged like any other.
    """
    ran = {run.program for run in evidence.known}
    lost = [
        evidence.direction.gain(0.0, evidence.blocks.contrast(evidence.incumbent, one).difference)
        for one in evidence.line
        if one in ran and one != evidence.incumbent
    ]
    return 2 * _allowed(evidence) - max([0.0, *lost])


def _next_run(evidence: Evidence) -> Action:
    """The candidate's next run, or before it a run of the incumbent on the seed, if they have no seed in common."""
    own = [run for run in evidence.known if run.program == evidence.incumbent]
    if evidence.single:
        return Action(Step.RUN_CANDIDATE, evidence, seed=own[0].block.seed)
    used = evidence.avoided | {run.block.seed for run in evidence.runs}
    fit = [run.block for run in own if not run.selected and run.block.seed not in used]
    now = _rotated((block.seed for block in fit if block.time == evidence.time), evidence.number)
    known = _rotated((block.seed for block in fit), evidence.number)
    if evidence.alone:
        return Action(Step.RUN_CANDIDATE, evidence, seed=now[0] if now else None)
    # A first run takes its turn among all seeds, so that after a pause, too, no single seed decides.
    seed = next(iter(now if evidence.runs else known), known[0] if known else None)
    step = Step.RUN_CANDIDATE if seed in now else Step.RUN_INCUMBENT
    return Action(step, evidence, seed=seed)


def _renewal_seed(evidence: Evidence) -> int | None:
    """A seed on which an earlier incumbent ran, and the present one did not; None if there is none."""
    own = {run.block.seed for run in evidence.known if run.program == evidence.incumbent}
    earlier = set(evidence.line) - {evidence.incumbent}
    seeds = (run.block.seed for run in evidence.known if run.program in earlier and not run.selected)
    return next(iter(_rotated((seed for seed in seeds if seed not in own), evidence.number)), None)


def _rotated(seeds: Iterable[int], number: int) -> list[int]:
    """The distinct seeds, another one first for every number."""
    distinct = list(dict.fromkeys(seeds))
    turn = number % len(distinct) if distinct else 0
    return distinct[turn:] + distinct[:turn]


def _beats(evidence: Evidence, margin: float) -> bool:
    """Whether the candidate passes the acceptance test, which computes the same values, to the last bit."""
    metric, best = evidence.metric, evidence.best
    return metric < best - margin if evidence.direction is Direction.MINIMIZE else metric > best + margin


def _looks(evidence: Evidence) -> int:
    return max(evidence.rule.looks, SIMPLER_LOOKS) if evidence.simpler else evidence.rule.looks


def _screen_margin(evidence: Evidence) -> float:
    """The gain that the first run needs."""
    if evidence.simpler and evidence.rule.looks:
        return -max(0.0, simplification_left(evidence))
    return 0.0 if evidence.single else evidence.rule.slack * evidence.components.residual


def _margins(evidence: Evidence, looks: int, error: float, degrees: float) -> tuple[float, float]:
    """The gain that shows "better" after `looks` confirmations, and the gain that keeps: less for simpler programs."""
    if not degrees:
        return math.inf, math.inf
    threshold = evidence.rule.threshold(looks, evidence.kept, evidence.tried)
    better = _times(student_t.quantile(threshold, degrees), error)
    if not evidence.simpler:
        return better, better
    no_worse = _times(student_t.quantile(_SIMPLER_P, degrees), error) - _allowed(evidence)
    return better, min(better, max(no_worse, -simplification_left(evidence)))


def _futility(evidence: Evidence, looks: int, error: float, degrees: float) -> float:
    """The gain below which the candidate is dropped before the last look."""
    drop = evidence.rule.drop
    if not degrees:
        return math.inf
    if evidence.simpler:
        return _times(student_t.quantile(_SIMPLER_FUTILE_P, degrees), error) - _allowed(evidence)
    return _times(student_t.quantile(drop[looks - 1], degrees), error) if looks <= len(drop) else -math.inf


def _allowed(evidence: Evidence) -> float:
    """How much worse a simpler program may be; for a deterministic metric, only the rounding error."""
    if evidence.exact:
        return max(EXACT * abs(evidence.standing), math.ulp(0.0))
    return evidence.components.residual


def _times(z: float, error: float) -> float:
    return z * error if z else 0.0  # `error` may be infinite, and 0 * inf is NaN


def _sentence(action: Action) -> str:
    looks = action.evidence.looks
    if action.reason is None:  # the step is a run
        return f"{action.comparison}: {action.step}" if action.evidence.runs else str(action.step)
    words = {
        Reason.IMPROVED: "better", Reason.SIMPLER: "simpler and no worse", Reason.REGRESSION: "not better",
        Reason.WITHIN_NOISE: "within noise", Reason.NOT_FINITE: "not a finite number",
    }  # fmt: skip
    after = f"after {looks} confirmation{'s' * (looks > 1)}" if looks else "in its first run"
    p = "" if math.isnan(action.p) or not looks else f" (P = {action.p:.2f})"
    return f"{action.comparison}: {words[action.reason]} {after}{p}"
