"""The words in which a verdict is given, and what git must not take whatever a test says.

The keep rule's own part is over by then (`rule.py`): it has said how often to run, and what the evidence has to show.
The acceptance test has the last word.
"""

from __future__ import annotations

import math

from pytest_autoresearch.core.experiment import BASELINE, Experiment, Reason, Status, Verdict
from pytest_autoresearch.core.run import Crash


def crashed(crash: Crash) -> Verdict:
    """The verdict on an experiment that has no metric."""
    return Verdict(Status.CRASH, crash.reason, str(crash))


def kept(experiment: Experiment) -> Verdict:
    """The verdict when every test passed."""
    if experiment.number == BASELINE:
        return Verdict(Status.KEEP, Reason.BASELINE, f"{experiment.metric_name} {experiment.metric:.6f}")
    reason = Reason.IMPROVED if experiment.gain > experiment.margin else Reason.ACCEPTED
    if experiment.decision.decided is Reason.SIMPLER:
        reason = Reason.SIMPLER
    return Verdict(Status.KEEP, reason, _against_best(experiment), experiment.gain)


def stopped(experiment: Experiment) -> Verdict:
    """The verdict on an experiment that was ended early, as hopeless: no test is asked."""
    said = experiment.decision.evidence or experiment.hopeless
    return Verdict(Status.DISCARD, Reason.HOPELESS, f"{experiment.metric_name}: {said}")


def discarded(experiment: Experiment, assertion: str) -> Verdict:
    """The verdict when a test said no; `assertion` is what it said."""
    improved = experiment.gain > experiment.margin
    message = _against_best(experiment)
    if improved or experiment.number == BASELINE:
        message = f"{message}; {assertion}"
    decided = experiment.decision.decided
    dropped = decided if decided in (Reason.REGRESSION, Reason.WITHIN_NOISE) else Reason.NOT_IMPROVED
    return Verdict(Status.DISCARD, Reason.ASSERTION if improved else dropped, message, _gain(experiment))


def undecided(experiment: Experiment, word: Reason, said: str) -> Verdict:
    """The verdict on a test that was skipped or expected to fail: never a keep."""
    return Verdict(Status.DISCARD, word, f"{_against_best(experiment)}; {word}: {said}", _gain(experiment))


def veto(experiment: Experiment, head: str | None) -> Verdict | None:
    """Why git must not take it, whatever the tests say; None when nothing stands against it.

    Args:
        experiment: All of its tests passed.
        head: The commit of the branch now, None before the baseline.
    """
    if not math.isfinite(experiment.metric):
        return Verdict(Status.DISCARD, Reason.NOT_FINITE, f"{experiment.metric_name} is {experiment.metric}")
    if head is not None and experiment.number != BASELINE and experiment.base != head:
        message = (
            f"measured on {experiment.base[:7]}, but the branch is at {head[:7]} now: it will be tried again there"
        )
        return Verdict(Status.DISCARD, Reason.STALE, message, experiment.gain)
    return None


def _gain(experiment: Experiment) -> float | None:
    return experiment.gain if math.isfinite(experiment.gain) else None


def _against_best(experiment: Experiment) -> str:
    said = f"{experiment.metric_name} {experiment.metric:.6f}"
    if experiment.decision.best is None:
        return said
    if experiment.decision.evidence:
        return f"{experiment.metric_name} {experiment.decision.evidence}"
    return f"{said}, best {experiment.best:.6f} ({experiment.metric - experiment.best:+.6f})"
