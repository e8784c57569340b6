"""A verdict with its numbers, in sentences that say what was measured, how sure it is, and what it does not show.

Pure. Every number is one of the record's: nothing is estimated anew here.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence

from pytest_autoresearch.core.experiment import BASELINE, Experiment, Reason, Status
from pytest_autoresearch.core.run import Role
from pytest_autoresearch.reports.plain import line
from pytest_autoresearch.reports.points import MOST_DECIMALS, counted
from pytest_autoresearch.reports.summary import plural


def sentence(experiment: Experiment, decimals: int) -> str:
    """What became of an experiment and why.

    Args:
        experiment: Judged.
        decimals: With how many a metric is written.
    """
    ruling = experiment.verdict
    if ruling is None:
        return "No verdict yet."
    if stopped := _stopped(experiment, decimals):
        return stopped
    if experiment.crash is not None or ruling.status is Status.CRASH:
        return _crashed(experiment)
    if experiment.number == BASELINE:
        return _baseline(experiment, decimals)
    said = _Words(experiment, decimals)
    if ruling.status is Status.KEEP:
        return _kept(experiment, said)
    return _discarded(experiment, said)


class _Words:
    """The parts that several sentences share."""

    def __init__(self, experiment: Experiment, decimals: int) -> None:
        self._of, self._decimals = experiment, decimals
        self.runs = counted(experiment)

    def number(self, value: float) -> str:
        return number(value, self._decimals)

    @property
    def estimate(self) -> str:
        """The metric, and what it is made of."""
        name, runs = self._of.metric_name, self.runs
        if len(runs) < 2:
            return f"One run gave {name} {self.number(self._of.metric)}"
        screened = any(run.role is Role.SCREEN for run in runs) and any(run.role is Role.CONFIRM for run in runs)
        how = " (the first at half weight, because it was selected by that run)" if screened else ""
        return f"{len(runs)} runs on different seeds{how} put {name} at {self.number(self._of.metric)}"

    @property
    def difference(self) -> str:
        """Beside the best so far."""
        if self._of.decision.best is None or not math.isfinite(self._of.gain):
            return ""
        gain, best = self._of.gain, self.number(self._of.best)
        if gain == 0:
            return f", exactly the best so far, {best}"
        word = "better" if gain > 0 else "worse"
        return f", {self.number(abs(gain))} {word} than the best so far, {best}"

    @property
    def sure(self) -> str:
        """How probable it is that it is truly better; empty where that was not asked."""
        p = self._of.decision.probability
        if p is None or not math.isfinite(p):
            return ""
        shown = f"{p:.2f}" if 0.005 <= p < 0.995 else (f"{p:.3f}" if 0.0005 <= p < 0.9995 else f"{p:.4f}")
        if p in (0.0, 1.0):
            shown = f"{p:.0f}"
        return shown

    @property
    def demand(self) -> str:
        """What the keep rule asked for at its last look."""
        margin = self._of.margin
        if not math.isfinite(margin):
            return ""
        if margin > 0:
            return f"the rule asked for a gain of more than {self.number(margin)}"
        return f"the rule allowed it to be worse by up to {self.number(-margin)}" if margin < 0 else ""


def number(value: float, decimals: int) -> str:
    """A metric, or a difference of two, with its decimals; in powers of ten where it is far from one."""
    if not math.isfinite(value):
        return str(value)
    least = 10.0**-decimals
    if abs(value) >= 1e9 or (decimals == MOST_DECIMALS and 0 < abs(value) < least):
        return f"{value:.6g}"
    if 0 < abs(value) < least / 2:
        return f"less than {least:.{decimals}f}"
    return f"{value:.{decimals}f}"


def _baseline(experiment: Experiment, decimals: int) -> str:
    runs = [run.metric for run in counted(experiment) if run.metric is not None]
    name, shown = experiment.metric_name, number(experiment.metric, decimals)
    if len(runs) < 2:
        return f"The baseline: {name} {shown}, by one run. Its noise was not measured."
    spread = statistics.stdev(runs)
    if spread == 0:
        return f"The baseline: {name} {shown} in each of {len(runs)} runs on different seeds: no noise was seen."
    return (
        f"The baseline: {name} {shown}, the mean of {len(runs)} runs on different seeds. The standard deviation of one "
        f"run is {number(spread, decimals)}, with {plural(len(runs) - 1, 'degree')} of freedom."
    )


def _kept(experiment: Experiment, said: _Words) -> str:
    first = f"Kept. {said.estimate}{said.difference}."
    if experiment.decision.decided is Reason.SIMPLER:
        worse = f"; {said.demand}" if said.demand else ""
        return f"{first} The program is simpler, and it is no worse beyond what the rule allows{worse}."
    if not said.sure:
        return f"{first} No probability was asked for: one run cannot tell a gain from luck of the seed."
    if len(said.runs) < 2:
        return f"{first} The metric did not vary with the seed in the baseline's runs, so one run decides."
    demand = f"; {said.demand}" if said.demand else ""
    return (
        f"{first} Given all runs of both and the noise between seeds, the probability that it is truly better is "
        f"{said.sure} (one-sided, Student's t){demand}. It was selected for looking good, so the gain is more likely "
        "a little overstated than understated; only an audit measures it afresh."
    )


def _discarded(experiment: Experiment, said: _Words) -> str:
    ruling = experiment.verdict
    assert ruling is not None
    first = f"Discarded. {said.estimate}{said.difference}."
    if ruling.reason == Reason.REGRESSION:
        sure = f" By that run alone the probability that it is better is {said.sure}." if said.sure else ""
        return f"{first} It was not better in its first run, so no further run was spent on it.{sure}"
    if ruling.reason == Reason.WITHIN_NOISE:
        sure = f" The probability that it is better is {said.sure} (one-sided, Student's t)" if said.sure else ""
        demand = f"; {said.demand}" if sure and said.demand else ""
        return (
            f"{first}{sure}{demand}{'.' if sure else ''} This does not show that the change has no effect, only that "
            "these runs could not tell it from none."
        )
    if ruling.reason == Reason.NOT_IMPROVED:
        return f"{first} It did not beat what it had to, so git kept the branch where it was."
    return f"{first} {_sentence_of(ruling.message)}"


def _crashed(experiment: Experiment) -> str:
    crash, ruling = experiment.crash, experiment.verdict
    if experiment.refusal is not None:
        return (
            f"Refused before anything was run ({experiment.refusal.reason}). {_sentence_of(experiment.refusal.message)}"
        )
    if crash is not None:
        return f"Crashed ({crash.reason}), so there is no number to judge. {_sentence_of(crash.message)}"
    assert ruling is not None
    return f"Crashed ({ruling.reason}), so there is no number to judge. {_sentence_of(ruling.message)}"


def _stopped(experiment: Experiment, decimals: int) -> str:
    run = experiment.last_run
    if run is None or not run.stopped:
        return ""
    saved = max(0.0, experiment.budget_seconds - run.training_seconds)
    before = [other.metric for other in counted(experiment) if other.metric is not None]
    had = f" {plural(len(before), 'run')} before it had given {_listed(before, decimals)}." if before else ""
    return (
        f"Stopped early. {_sentence_of(run.hopeless)} It was ended after {run.training_seconds:.0f} of "
        f"{experiment.budget_seconds:.0f} training seconds{f', which saved {saved:.0f} s' if saved else ''}; there is "
        f"no final number, and a curve that bends late would have been missed.{had}"
    )


def _listed(metrics: Sequence[float], decimals: int) -> str:
    return ", ".join(number(one, decimals) for one in metrics)


def _sentence_of(text: str) -> str:
    """The text as a sentence of its own."""
    text = line(text)[:600]
    return f"{text[:1].upper()}{text[1:]}" + ("" if text.endswith((".", "!", "?")) or not text else ".")
