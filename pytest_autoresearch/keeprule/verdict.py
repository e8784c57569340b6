"""Makes the verdict from the keep rule's decision and the acceptance test, which decides last.

Also holds the veto: the keeps that git must not accept, whatever the tests say.
"""

from __future__ import annotations

import math

from pytest_autoresearch.core.experiment import BASELINE, Experiment, Reason, Status, Verdict
from pytest_autoresearch.core.run import Crash, CrashClass
from pytest_autoresearch.keeprule.noise import DETERMINISTIC
from pytest_autoresearch.keeprule.replicates import is_exact


def crashed(crash: Crash) -> Verdict:
    """The verdict on a crash."""
    return Verdict(Status.CRASH, crash.reason, str(crash))


def kept(experiment: Experiment) -> Verdict:
    """The verdict if every test passed."""
    if experiment.number == BASELINE:
        said = f", {DETERMINISTIC}" if is_exact(experiment) else ""
        return Verdict(Status.KEEP, Reason.BASELINE, f"{experiment.metric_name} {experiment.metric:.6f}{said}")
    if experiment.share is not None:
        return Verdict(Status.DISCARD, Reason.JOINS, _against_best(experiment), experiment.gain)
    reason = Reason.IMPROVED if experiment.gain > experiment.margin else Reason.ACCEPTED
    if experiment.decision.decided is Reason.SIMPLER:
        reason = Reason.SIMPLER
    return Verdict(Status.KEEP, reason, _against_best(experiment), experiment.gain)


def refuting(experiment: Experiment) -> Verdict:
    """The verdict on an experiment during which the best so far was rejected: it has to be measured against another."""
    crashes = (run.crash for run in experiment.runs if run.commit == experiment.refutes)
    why = next(crash.message for crash in crashes if crash is not None and crash.kind is CrashClass.REJECTED)
    message = f"{experiment.refutes[:7]} was rejected when it ran again and is taken back ({why})"
    return Verdict(Status.DISCARD, Reason.STALE, f"{message}: this change will be measured again without it")


def stopped(experiment: Experiment) -> Verdict:
    """The verdict on an experiment that was stopped early as hopeless; no test runs."""
    said = experiment.decision.evidence or experiment.hopeless
    return Verdict(Status.DISCARD, Reason.HOPELESS, f"{experiment.metric_name}: {said}")


def discarded(experiment: Experiment, assertion: str) -> Verdict:
    """The verdict if a test failed; `assertion` is the test's message."""
    improved = experiment.gain > experiment.margin
    message = _against_best(experiment)
    if improved or experiment.number == BASELINE:
        message = f"{message}; {assertion}"
    decided = experiment.decision.decided
    dropped = decided if decided in (Reason.REGRESSION, Reason.WITHIN_NOISE) else Reason.NOT_IMPROVED
    return Verdict(Status.DISCARD, Reason.ASSERTION if improved else dropped, message, _gain(experiment))


def undecided(experiment: Experiment, word: Reason, said: str) -> Verdict:
    """The verdict if a test was skipped or expected to fail; never a keep."""
    return Verdict(Status.DISCARD, word, f"{_against_best(experiment)}; {word}: {said}", _gain(experiment))


def veto(experiment: Experiment, head: str | None) -> Verdict | None:
    """The verdict that replaces a keep which git must not accept; None if the keep stands.

    Args:
        experiment: An experiment whose tests all passed.
        head: The current commit of the branch, None before the baseline.
    """
    if not math.isfinite(experiment.metric):
        return Verdict(Status.DISCARD, Reason.NOT_FINITE, f"{experiment.metric_name} is {experiment.metric}")
    if head is not None and experiment.number != BASELINE and experiment.base != head:
        message = f"measured on {experiment.base[:7]}, but the branch is at {head[:7]} now: it will be measured again"
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
