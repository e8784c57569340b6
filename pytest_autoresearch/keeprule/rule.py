"""The keep rule: decides from the evidence so far which run comes next, or what the verdict is.

Pure and without state: the same evidence gives the same answer. Campaigns, simulations and tests use this same code.
Knows nothing of how a run is made.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from enum import StrEnum

from pytest_autoresearch.core.experiment import Direction, Reason, weighted
from pytest_autoresearch.keeprule import student_t
from pytest_autoresearch.keeprule.noise import EXACT, Noise

SIMPLER_LOOKS = 6  # it takes more runs to show "not worse" than "better"
_SIMPLER_P = 0.95
_SIMPLER_FUTILE_P = 0.4


class Step(StrEnum):
    """The next step."""

    RUN_CANDIDATE = "run the candidate"
    RUN_INCUMBENT = "run the incumbent"
    KEEP = "keep"
    DROP = "drop"


@dataclass(frozen=True, slots=True)
class Credit:
    """Makes the threshold depend on the campaign's success: the more proposals are kept, the lower the threshold.

    A keep needs a probability of `1 - rate * (kept + 1) / (tried + start)`, or the rule's own threshold if that is
    higher. So the threshold rises quickly in a campaign whose proposals change nothing.

    Attributes:
        rate: How much the share of kept proposals lowers the threshold.
        start: A pseudo-count: the campaign counts as if one keep in so many proposals came before it.
    """

    rate: float
    start: float

    def asks(self, kept: int, tried: int) -> float:
        """The probability that a keep needs now."""
        return 1 - self.rate * (kept + 1) / (tried + self.start)


@dataclass(frozen=True, slots=True)
class Rule:
    """A keep rule: the thresholds for keeping and dropping, and the number of runs.

    A look is a decision after a confirmation.

    Attributes:
        name: The name in `--autoresearch-confirm`.
        keep: For each look, the probability of being better above which a candidate is kept. Empty: one run decides.
        drop: For each look except the last, the probability below which a candidate is dropped. After the last look,
            every candidate that is not kept is dropped.
        incumbent_runs: The incumbent is run again while a candidate is undecided, up to this many runs in total.
        renew: Whether every new incumbent is run once more.
        slack: How much better than the incumbent the first run must be, in standard deviations.
        credit: If given, it may raise the threshold above `keep`.
    """

    name: str
    keep: tuple[float, ...] = ()
    drop: tuple[float, ...] = ()
    incumbent_runs: int = 4
    renew: bool = True
    slack: float = 0.0
    credit: Credit | None = None

    @property
    def looks(self) -> int:
        """The largest number of confirmations."""
        return len(self.keep)

    def threshold(self, look: int, kept: int, tried: int) -> float:
        """The probability above which a candidate is kept after `look` confirmations (1 or more)."""
        own = self.keep[min(look, len(self.keep)) - 1]
        return max(own, self.credit.asks(kept, tried)) if self.credit else own


OFF = Rule("off", renew=False)
STANDARD = Rule("standard", (0.90, 0.70), (0.40,))
STRICT = Rule("strict", (0.97, 0.93, 0.88), (0.40, 0.55))
LEAN = Rule("lean", (0.50,), slack=0.5, credit=Credit(6.8, 40))


# The share of proposals that are kept though they change nothing, measured by benchmarks/aa.py.
_BY_CHANCE = {"off": 0.042, "standard": 0.030, "strict": 0.010, "lean": 0.011}


def kept_by_chance(name: str) -> float:
    """The share of proposals that the rule keeps though they change nothing."""
    return _BY_CHANCE.get(name, _BY_CHANCE["standard"])


def rule_of(word: str) -> Rule:
    """The rule for a value of `--autoresearch-confirm`: a name, or the largest number of confirmations.

    For a number, the thresholds fall in equal steps from the standard rule's first to its last.

    Raises:
        ValueError: The word is neither.
    """
    named = {rule.name: rule for rule in (OFF, LEAN, STANDARD, STRICT)}
    if word in named:
        return named[word]
    if not (word.isascii() and word.isdecimal()) or int(word) < 1:
        raise ValueError(f"{word!r} is neither {', '.join(named)} nor a number of confirmations (1 or more)")
    looks = int(word)
    first, last = STANDARD.keep
    keep = tuple(round(first - (first - last) * look / max(looks - 1, 1), 6) for look in range(looks))
    return Rule(word, keep, STANDARD.drop * (looks - 1))


@dataclass(frozen=True, slots=True)
class Incumbent:
    """The branch head, estimated from its runs on fresh seeds, without the screening run that selected it.

    Attributes:
        runs: The number of runs.
        mean: Their mean metric.
        due: Whether the additional run after a keep is still missing.
    """

    runs: int
    mean: float
    due: bool = False


@dataclass(frozen=True, slots=True)
class Evidence:
    """Everything that a decision depends on.

    Attributes:
        rule: The keep rule.
        direction: Which way the metric improves.
        noise: The noise of the metric.
        incumbent: The incumbent to beat.
        screen: The candidate's first metric, None before its first run.
        confirmations: The candidate's metrics on fresh seeds, in order.
        renewed: The number of incumbent runs since the last confirmation.
        simpler: Whether the candidate is a simpler program, which is kept if it is no worse.
        reference: The best estimate of any incumbent of the campaign; None for the current incumbent's.
        kept: The number of proposals that the campaign has kept so far.
        tried: The number of proposals that the campaign has judged so far.
    """

    rule: Rule
    direction: Direction
    noise: Noise
    incumbent: Incumbent
    screen: float | None = None
    confirmations: tuple[float, ...] = ()
    renewed: int = 0
    simpler: bool = False
    reference: float | None = None
    kept: int = 0
    tried: int = 0

    @property
    def metric(self) -> float:
        """The candidate's estimate: the mean of its runs. The first, which selected it, has half weight."""
        if self.screen is None:
            return math.nan
        return weighted(self.screen, self.confirmations) if self.confirmations else float(self.screen)

    @property
    def error(self) -> float:
        """The standard error of the difference between the two estimates."""
        looks = len(self.confirmations)
        own = (0.25 + looks) / (0.5 + looks) ** 2
        return self.noise.sd * math.sqrt(own + 1 / max(self.incumbent.runs, 1))

    @property
    def gain(self) -> float:
        """The candidate's improvement over the incumbent; positive is better, whatever the direction."""
        return self.direction.gain(self.metric, self.incumbent.mean)

    @property
    def p(self) -> float:
        """The probability that the candidate is better; NaN if unknown."""
        return self.p_of_losing_less_than(0.0)

    def p_of_losing_less_than(self, allowed: float) -> float:
        """The probability that the candidate is worse by less than `allowed`, in the metric's unit; NaN if unknown."""
        gain, error = self.gain + allowed, self.error
        if math.isnan(gain) or (not self.noise.degrees and not self.noise.exact):
            return math.nan
        if self.noise.exact or error == 0:
            return 1.0 if gain > 0 else 0.5 if gain == 0 else 0.0
        if math.isinf(error):
            return math.nan if math.isinf(gain) else 0.5
        return student_t.cdf(gain / error, self.noise.degrees)


@dataclass(frozen=True, slots=True)
class Action:
    """The next step, and its reason.

    Attributes:
        step: The step.
        evidence: The evidence that the decision is based on.
        reason: The reason of a verdict; None if the step is a run.
        margin: The gain that a keep needs. Minimising, the candidate is kept exactly if `metric < best - margin`;
            maximising, if `metric > best + margin`.
    """

    step: Step
    evidence: Evidence
    reason: Reason | None = None
    margin: float = 0.0

    @property
    def metric(self) -> float:
        """The candidate's estimate."""
        return self.evidence.metric

    @property
    def best(self) -> float:
        """The incumbent's estimate."""
        return self.evidence.incumbent.mean

    @property
    def p(self) -> float:
        """The probability that the candidate is better, by all of its runs."""
        return self.evidence.p

    @property
    def comparison(self) -> str:
        """The two estimates, such as `0.9715 against 0.9716 ± 0.0004`; the last number is their standard error."""
        error = self.evidence.error
        noisy = 0 < error < math.inf and not self.evidence.noise.exact
        places = f".{min(max(0, -math.floor(math.log10(error))), 12)}f" if noisy else ".7g"
        return f"{self.metric:{places}} against {self.best:{places}}" + (f" ± {error:{places}}" if noisy else "")

    @property
    def sentence(self) -> str:
        """The evidence as one sentence for people."""
        return _sentence(self)


def next_action(evidence: Evidence) -> Action:
    """Decide the next step.

    The caller makes the run on a fresh seed, updates the evidence (with the incumbent's mean and the noise), and calls
    again.
    """
    rule, noise, incumbent = evidence.rule, evidence.noise, evidence.incumbent
    single = not rule.looks or noise.exact
    if incumbent.due and not noise.exact:
        return Action(Step.RUN_INCUMBENT, evidence)
    if evidence.screen is None:
        return Action(Step.RUN_CANDIDATE, evidence)
    if not math.isfinite(evidence.metric):
        return Action(Step.DROP, evidence, Reason.NOT_FINITE, math.inf)
    looks = len(evidence.confirmations)
    if single or not looks:
        margin = _screen_margin(evidence)
        if not _beats(evidence, margin):
            return Action(Step.DROP, evidence, Reason.REGRESSION, margin)
        if single:
            return Action(Step.KEEP, evidence, Reason.IMPROVED if _beats(evidence, 0.0) else Reason.SIMPLER, margin)
        if not noise.degrees and incumbent.runs < rule.incumbent_runs:
            return Action(Step.RUN_INCUMBENT, evidence)  # no decision is possible before the noise is known
        return Action(Step.RUN_CANDIDATE, evidence)
    better, margin = _margins(evidence, looks)
    last = looks >= _looks(evidence)
    if _beats(evidence, margin) and (last or not evidence.renewed):  # a run of the incumbent is not a look
        return Action(Step.KEEP, evidence, Reason.IMPROVED if _beats(evidence, better) else Reason.SIMPLER, margin)
    if last or not _beats(evidence, _futility(evidence, looks)):
        return Action(Step.DROP, evidence, Reason.WITHIN_NOISE, margin)
    if incumbent.runs < _incumbent_runs(evidence) and not evidence.renewed:
        return Action(Step.RUN_INCUMBENT, evidence)
    return Action(Step.RUN_CANDIDATE, evidence)


def needed(evidence: Evidence) -> float:
    """The racing threshold: the metric that the candidate's next run has to beat, or the candidate is dropped.

    Args:
        evidence: The evidence before that run.
    """
    if evidence.screen is None:
        return _bar(evidence, _screen_margin(evidence))
    looks = len(evidence.confirmations) + 1
    after = Evidence(
        evidence.rule, evidence.direction, evidence.noise, evidence.incumbent, evidence.screen,
        (*evidence.confirmations, evidence.incumbent.mean), 0, evidence.simpler, evidence.reference,
        evidence.kept, evidence.tried,
    )  # fmt: skip
    keep = _margins(after, looks)[1]
    margin = keep if looks >= _looks(after) else min(keep, _futility(after, looks))
    # Solve "weighted mean with the next run = bar" for the next run's metric.
    return evidence.metric + (_bar(evidence, margin) - evidence.metric) * (0.5 + looks)


def simplification_left(evidence: Evidence) -> float:
    """How much worse than the campaign's best estimate simpler programs may still make the incumbent, in its unit.

    At zero or less, simpler programs are judged like any other.
    """
    reference = evidence.incumbent.mean if evidence.reference is None else evidence.reference
    return 2 * _allowed(evidence) - evidence.direction.gain(reference, evidence.incumbent.mean)


def _bar(evidence: Evidence, margin: float) -> float:
    """The metric to beat. The acceptance test computes the same value, to the last bit."""
    best = evidence.incumbent.mean
    return best - margin if evidence.direction is Direction.MINIMIZE else best + margin


def _beats(evidence: Evidence, margin: float) -> bool:
    bar = _bar(evidence, margin)
    return evidence.metric < bar if evidence.direction is Direction.MINIMIZE else evidence.metric > bar


def _looks(evidence: Evidence) -> int:
    return max(evidence.rule.looks, SIMPLER_LOOKS) if evidence.simpler else evidence.rule.looks


def _incumbent_runs(evidence: Evidence) -> int:
    return max(evidence.rule.incumbent_runs, SIMPLER_LOOKS) if evidence.simpler else evidence.rule.incumbent_runs


def _screen_margin(evidence: Evidence) -> float:
    """The gain that the first run needs."""
    rule, noise = evidence.rule, evidence.noise
    if evidence.simpler and rule.looks:
        return -max(0.0, simplification_left(evidence))
    if noise.exact or not rule.slack or not noise.degrees:
        return 0.0
    return rule.slack * noise.sd


def _margins(evidence: Evidence, looks: int) -> tuple[float, float]:
    """The gain that shows "better" after `looks` confirmations, and the gain that keeps: less for simpler programs."""
    noise, error = evidence.noise, evidence.error
    if not noise.degrees:
        return math.inf, math.inf
    better = _times(
        student_t.quantile(evidence.rule.threshold(looks, evidence.kept, evidence.tried), noise.degrees), error
    )
    if not evidence.simpler:
        return better, better
    no_worse = _times(student_t.quantile(_SIMPLER_P, noise.degrees), error) - _allowed(evidence)
    return better, min(better, max(no_worse, -simplification_left(evidence)))


def _futility(evidence: Evidence, looks: int) -> float:
    """The gain below which the candidate is dropped before the last look."""
    noise, drop = evidence.noise, evidence.rule.drop
    if not noise.degrees:
        return math.inf
    if evidence.simpler:
        return _times(student_t.quantile(_SIMPLER_FUTILE_P, noise.degrees), evidence.error) - _allowed(evidence)
    return (
        _times(student_t.quantile(drop[looks - 1], noise.degrees), evidence.error) if looks <= len(drop) else -math.inf
    )


def _allowed(evidence: Evidence) -> float:
    """How much worse a simpler program may be; for a deterministic metric, only the rounding error."""
    if not evidence.noise.exact:
        return evidence.noise.sd if evidence.noise.degrees else 0.0
    return max(EXACT * abs(evidence.incumbent.mean), math.ulp(0.0))


def _times(z: float, error: float) -> float:
    return z * error if z else 0.0  # `error` may be infinite, and 0 * inf is NaN


def _sentence(action: Action) -> str:
    looks = len(action.evidence.confirmations)
    if action.reason is None:  # the step is a run
        return f"{action.comparison}: {action.step}" if action.evidence.screen is not None else str(action.step)
    words = {
        Reason.IMPROVED: "better", Reason.SIMPLER: "simpler and no worse", Reason.REGRESSION: "not better",
        Reason.WITHIN_NOISE: "within noise", Reason.NOT_FINITE: "not a finite number",
    }  # fmt: skip
    after = f"after {looks} confirmation{'s' * (looks > 1)}" if looks else "in its first run"
    p = "" if math.isnan(action.p) or not looks else f" (P = {action.p:.2f})"
    return f"{action.comparison}: {words[action.reason]} {after}{p}"
