"""The keep rule: a small state machine that says, of the evidence so far, which run comes next or what the verdict is.

Pure: numbers in, numbers and sentences out. The campaign, the simulations and the tests all drive this code. It knows
nothing of how a run is made, and remembers nothing: the same evidence gives the same answer.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from enum import StrEnum

from pytest_autoresearch.core.experiment import Direction, Reason, weighted
from pytest_autoresearch.keeprule import student_t
from pytest_autoresearch.keeprule.noise import EXACT, Noise

SIMPLER_LOOKS = 6  # to show that something is not worse takes more runs than to show that it is better
_SIMPLER_P = 0.95
_SIMPLER_FUTILE_P = 0.4


class Step(StrEnum):
    """What comes next."""

    RUN_CANDIDATE = "run the candidate"
    RUN_INCUMBENT = "run the incumbent"
    KEEP = "keep"
    DROP = "drop"


@dataclass(frozen=True, slots=True)
class Credit:
    """What a campaign has earned by what it kept: where one in five is kept, one more is believed more readily.

    A keep asks for a probability of `1 - rate * (kept + 1) / (tried + start)`, as long as that is more than the rule's
    own threshold. So a campaign of proposals that change nothing soon asks for a lot.

    Attributes:
        rate: How much a share of kept proposals takes away from what is asked for.
        start: How many proposals of which one was kept a campaign is taken to have behind it.
    """

    rate: float
    start: float

    def asks(self, kept: int, tried: int) -> float:
        """The probability that a keep has to have now."""
        return 1 - self.rate * (kept + 1) / (tried + self.start)


@dataclass(frozen=True, slots=True)
class Rule:
    """When to keep, when to give up, and what may be run to find out.

    Attributes:
        name: As the user names it.
        keep: The probability of being better that keeps a candidate after one confirmation, after two, and so on: as
            many as there are looks. Empty: one run decides.
        drop: The probability below which it is given up after each look but the last, where what is not kept goes.
        incumbent_runs: While a candidate is undecided the incumbent is run again, up to so many runs in all.
        renew: Whether a new incumbent is run once more, whatever comes.
        slack: How far below the incumbent a first run has to be, in standard deviations.
        credit: Where there is one, it may ask for more than `keep`.
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
        """How many confirmations there are at most."""
        return len(self.keep)

    def threshold(self, look: int, kept: int, tried: int) -> float:
        """The probability that keeps after so many confirmations, of which there is at least one."""
        own = self.keep[min(look, len(self.keep)) - 1]
        return max(own, self.credit.asks(kept, tried)) if self.credit else own


OFF = Rule("off", renew=False)
STANDARD = Rule("standard", (0.90, 0.70), (0.40,))
STRICT = Rule("strict", (0.97, 0.93, 0.88), (0.40, 0.55))
LEAN = Rule("lean", (0.50,), slack=0.5, credit=Credit(6.8, 40))


# Of 100 proposals that change nothing: measured by benchmarks/aa.py, for the rules that have a name.
_BY_CHANCE = {"off": 0.042, "standard": 0.030, "strict": 0.010, "lean": 0.011}


def kept_by_chance(name: str) -> float:
    """The share of proposals that change nothing and are kept all the same, by the rule of that name."""
    return _BY_CHANCE.get(name, _BY_CHANCE["standard"])


def rule_of(word: str) -> Rule:
    """The rule of a word of `--autoresearch-confirm`: a name, or the largest number of confirmations.

    With a number, what is asked for falls in equal steps from the standard rule's first threshold to its last.

    Raises:
        ValueError: It is none of these.
    """
    named = {rule.name: rule for rule in (OFF, LEAN, STANDARD, STRICT)}
    if word in named:
        return named[word]
    if not (word.isascii() and word.isdecimal()) or int(word) < 1:
        raise ValueError(f"{word!r} is neither {', '.join(named)} nor a number of confirmations from 1 on")
    looks = int(word)
    first, last = STANDARD.keep
    keep = tuple(round(first - (first - last) * look / max(looks - 1, 1), 6) for look in range(looks))
    return Rule(word, keep, STANDARD.drop * (looks - 1))


@dataclass(frozen=True, slots=True)
class Incumbent:
    """The branch head, by its runs on fresh seeds. The run that chose it as a candidate is not among them.

    Attributes:
        runs: How many there are.
        mean: Of their metrics.
        due: Whether the run that follows a keep is still to be made.
    """

    runs: int
    mean: float
    due: bool = False


@dataclass(frozen=True, slots=True)
class Evidence:
    """All that a verdict is made from.

    Attributes:
        rule: What it is made by.
        direction: Which way the metric improves.
        noise: What is known of it.
        incumbent: What has to be beaten.
        screen: The candidate's first metric, None before it was run.
        confirmations: Its metrics on fresh seeds, in order.
        renewed: How often the incumbent was run since the last of them.
        simpler: Whether the candidate is a simpler program, to be kept where it is no worse.
        reference: The best estimate that any incumbent of the campaign had; None: the incumbent's.
        kept: How many proposals the campaign has kept before this one.
        tried: How many it has judged.
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
        """The candidate's estimate: the mean of its runs, the first at half weight, since it was selected by it."""
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
        """How much better the candidate's estimate is; positive is better, whatever the direction."""
        return self.direction.gain(self.metric, self.incumbent.mean)

    @property
    def p(self) -> float:
        """The probability that the candidate is better; NaN where there is no telling."""
        return self.p_of_losing_less_than(0.0)

    def p_of_losing_less_than(self, allowed: float) -> float:
        """The probability that it is worse by less than this."""
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
    """What to do now, and for a verdict why.

    Attributes:
        step: What to do.
        evidence: What it follows from.
        reason: For a verdict, why; None where a run is to be made.
        margin: What the evidence has to show beyond the incumbent's mean. Minimising, it is a keep exactly where
            `metric < best - margin`; maximising, where `metric > best + margin`.
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
        """The incumbent's."""
        return self.evidence.incumbent.mean

    @property
    def p(self) -> float:
        """The probability that the candidate is better, by all of its runs."""
        return self.evidence.p

    @property
    def sentence(self) -> str:
        """The evidence, for people."""
        return _sentence(self)


def next_action(evidence: Evidence) -> Action:
    """What to do next.

    The candidate's runs are made on fresh seeds and so are the incumbent's; their metrics come back in the next
    evidence, the incumbent's mean and the noise with them.
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
            return Action(Step.RUN_INCUMBENT, evidence)  # nothing can be said before the noise is known
        return Action(Step.RUN_CANDIDATE, evidence)
    better, margin = _margins(evidence, looks)
    last = looks >= _looks(evidence)
    if _beats(evidence, margin) and (last or not evidence.renewed):  # another run of the incumbent is no look
        return Action(Step.KEEP, evidence, Reason.IMPROVED if _beats(evidence, better) else Reason.SIMPLER, margin)
    if last or not _beats(evidence, _futility(evidence, looks)):
        return Action(Step.DROP, evidence, Reason.WITHIN_NOISE, margin)
    if incumbent.runs < _incumbent_runs(evidence) and not evidence.renewed:
        return Action(Step.RUN_INCUMBENT, evidence)
    return Action(Step.RUN_CANDIDATE, evidence)


def needed(evidence: Evidence) -> float:
    """The metric that the candidate's next run has to beat, or it is dropped: what a race is run against.

    A race looks at the run while it is made; the evidence is that before it.
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
    # The mean that the weighted one has to come to, less what the other runs have given it.
    return evidence.metric + (_bar(evidence, margin) - evidence.metric) * (0.5 + looks)


def simplification_left(evidence: Evidence) -> float:
    """How much worse simpler programs may still make the incumbent than the best there was, in the metric's unit.

    Zero or less: they are judged as any other from now on.
    """
    reference = evidence.incumbent.mean if evidence.reference is None else evidence.reference
    return 2 * _allowed(evidence) - evidence.direction.gain(reference, evidence.incumbent.mean)


def _bar(evidence: Evidence, margin: float) -> float:
    """What has to be beaten: as the acceptance test has it, to the last bit."""
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
    """What the first run has to show."""
    rule, noise = evidence.rule, evidence.noise
    if evidence.simpler and rule.looks:
        return -max(0.0, simplification_left(evidence))
    if noise.exact or not rule.slack or not noise.degrees:
        return 0.0
    return rule.slack * noise.sd


def _margins(evidence: Evidence, looks: int) -> tuple[float, float]:
    """What shows after so many confirmations that it is better; and what keeps it, which is less if it is simpler."""
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
    """The margin that it does not even have to fall short of to be given up."""
    noise, drop = evidence.noise, evidence.rule.drop
    if not noise.degrees:
        return math.inf
    if evidence.simpler:
        return _times(student_t.quantile(_SIMPLER_FUTILE_P, noise.degrees), evidence.error) - _allowed(evidence)
    return (
        _times(student_t.quantile(drop[looks - 1], noise.degrees), evidence.error) if looks <= len(drop) else -math.inf
    )


def _allowed(evidence: Evidence) -> float:
    """How much worse a simpler program may be; of a deterministic metric, what is no difference."""
    if not evidence.noise.exact:
        return evidence.noise.sd if evidence.noise.degrees else 0.0
    return max(EXACT * abs(evidence.incumbent.mean), math.ulp(0.0))


def _times(z: float, error: float) -> float:
    return z * error if z else 0.0  # no confidence asked for and no idea of the noise: nothing is asked for


def _sentence(action: Action) -> str:
    evidence = action.evidence
    error, looks = evidence.error, len(evidence.confirmations)
    noisy = 0 < error < math.inf and not evidence.noise.exact
    digits = min(max(0, -math.floor(math.log10(error))), 12) if noisy else None
    told = [
        f"{number:.{digits}f}" if digits is not None else f"{number:.7g}" for number in (action.metric, action.best)
    ]
    said = f"{told[0]} against {told[1]}" + (f" ± {error:.{digits}f}" if noisy else "")
    if action.reason is None:  # a run is to be made
        return f"{said}: {action.step}" if evidence.screen is not None else str(action.step)
    words = {
        Reason.IMPROVED: "better", Reason.SIMPLER: "simpler and no worse", Reason.REGRESSION: "not better",
        Reason.WITHIN_NOISE: "within noise", Reason.NOT_FINITE: "not a finite number",
    }  # fmt: skip
    after = f"after {looks} confirmation{'s' * (looks > 1)}" if looks else "in its first run"
    p = "" if math.isnan(action.p) or not looks else f" (P = {action.p:.2f})"
    return f"{said}: {words[action.reason]} {after}{p}"
