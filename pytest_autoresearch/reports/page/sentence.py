"""A verdict in sentences: what was measured, how sure it is, and what it does not show.

Pure. Every number comes from the record; nothing is estimated here.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence

from pytest_autoresearch.core.experiment import BASELINE, Experiment, Reason, Status
from pytest_autoresearch.core.run import Role
from pytest_autoresearch.keeprule.noise import DETERMINISTIC
from pytest_autoresearch.reports.plain import line
from pytest_autoresearch.reports.points import MOST_DECIMALS, counted
from pytest_autoresearch.reports.summary import plural


def sentence(experiment: Experiment, decimals: int) -> str:
    """The verdict of an experiment and its reason.

    Args:
        experiment: Judged.
        decimals: Decimals of a metric.
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
        """The metric, and the runs behind it."""
        name, runs = self._of.metric_name, self.runs
        if len(runs) < 2:
            return f"One run gave {name} {self.number(self._of.metric)}"
        screened = any(run.role is Role.SCREEN for run in runs) and any(run.role is Role.CONFIRM for run in runs)
        how = " (the first has half weight, because that run selected the change)" if screened else ""
        return f"{len(runs)} runs on different seeds{how} put {name} at {self.number(self._of.metric)}"

    @property
    def difference(self) -> str:
        """The difference to the best so far."""
        if self._of.decision.best is None or not math.isfinite(self._of.gain):
            return ""
        gain, best = self._of.gain, self.number(self._of.best)
        if gain == 0:
            return f", equal to the best so far ({best})"
        word = "better" if gain > 0 else "worse"
        return f", {self.number(abs(gain))} {word} than the best so far ({best})"

    @property
    def sure(self) -> str:
        """The probability that the change is truly better; empty if not computed."""
        p = self._of.decision.probability
        if p is None or not math.isfinite(p):
            return ""
        shown = f"{p:.2f}" if 0.005 <= p < 0.995 else (f"{p:.3f}" if 0.0005 <= p < 0.9995 else f"{p:.4f}")
        if p in (0.0, 1.0):
            shown = f"{p:.0f}"
        return shown

    @property
    def demand(self) -> str:
        """The gain that the keep rule required at its last look."""
        margin = self._of.margin
        if not math.isfinite(margin):
            return ""
        if margin > 0:
            return f"the rule required a gain above {self.number(margin)}"
        return f"the rule allowed a loss of up to {self.number(-margin)}" if margin < 0 else ""


def number(value: float, decimals: int) -> str:
    """A metric, or a difference of metrics, with the given decimals; very large and small ones in powers of ten."""
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
        return f"The baseline: {name} {shown}, from one run. The noise was not measured."
    spread = statistics.stdev(runs)
    if spread == 0:
        return f"The baseline: {name} {shown} in each of {len(runs)} runs: {DETERMINISTIC}."
    return (
        f"The baseline: {name} {shown}, the mean of {len(runs)} runs on different seeds. The standard deviation of one "
        f"run is {number(spread, decimals)} ({plural(len(runs) - 1, 'degree')} of freedom)."
    )


def _kept(experiment: Experiment, said: _Words) -> str:
    first = f"Kept. {said.estimate}{said.difference}."
    if experiment.decision.decided is Reason.SIMPLER:
        worse = f"; {said.demand}" if said.demand else ""
        return f"{first} The program is simpler and not worse than the rule allows{worse}."
    if not said.sure:
        return f"{first} No probability was computed: one run cannot tell a gain from a lucky seed."
    if len(said.runs) < 2:
        return f"{first} The metric did not vary with the seed in the baseline's runs, so one run decides."
    demand = f"; {said.demand}" if said.demand else ""
    return (
        f"{first} From the runs of both programs, compared seed by seed, the probability that it is truly better "
        f"is {said.sure} (one-sided, Student's t){demand}. A good result selected it, so the gain is probably slightly "
        "overstated; an audit measures it again."
    )


def _discarded(experiment: Experiment, said: _Words) -> str:
    ruling = experiment.verdict
    assert ruling is not None
    first = f"Discarded. {said.estimate}{said.difference}."
    if ruling.reason == Reason.REGRESSION:
        sure = f" From that run alone, the probability that it is better is {said.sure}." if said.sure else ""
        return f"{first} It was not better in its first run, so it was not run again.{sure}"
    if ruling.reason == Reason.WITHIN_NOISE:
        sure = f" The probability that it is better is {said.sure} (one-sided, Student's t)" if said.sure else ""
        demand = f"; {said.demand}" if sure and said.demand else ""
        return (
            f"{first}{sure}{demand}{'.' if sure else ''} This does not show that the change has no effect: these runs "
            "cannot tell its effect from noise."
        )
    if ruling.reason == Reason.NOT_IMPROVED:
        return f"{first} It did not beat the best so far, so the branch did not move."
    return f"{first} {_sentence_of(ruling.message)}"


def _crashed(experiment: Experiment) -> str:
    crash, ruling = experiment.crash, experiment.verdict
    if experiment.refusal is not None:
        when = "after its runs" if experiment.runs else "before any run"
        return f"Refused {when} ({experiment.refusal.reason}). {_sentence_of(experiment.refusal.message)}"
    if crash is not None:
        return f"Crashed ({crash.reason}), so there is no metric to judge. {_sentence_of(crash.message)}"
    assert ruling is not None
    return f"Crashed ({ruling.reason}), so there is no metric to judge. {_sentence_of(ruling.message)}"


def _stopped(experiment: Experiment, decimals: int) -> str:
    run = experiment.last_run
    if run is None or not run.stopped:
        return ""
    saved = max(0.0, experiment.budget_seconds - run.training_seconds)
    before = [other.metric for other in counted(experiment) if other.metric is not None]
    had = f" Earlier runs of it gave {_listed(before, decimals)}." if before else ""
    return (
        f"Stopped early. {_sentence_of(run.hopeless)} The run was stopped after {run.training_seconds:.0f} of "
        f"{experiment.budget_seconds:.0f} training seconds{f', which saved {saved:.0f} s' if saved else ''}. There is "
        f"no final metric, and a late improvement would have been missed.{had}"
    )


def _listed(metrics: Sequence[float], decimals: int) -> str:
    return ", ".join(number(one, decimals) for one in metrics)


def _sentence_of(text: str) -> str:
    """The text as one sentence."""
    text = line(text)[:600]
    return f"{text[:1].upper()}{text[1:]}" + ("" if text.endswith((".", "!", "?")) or not text else ".")
