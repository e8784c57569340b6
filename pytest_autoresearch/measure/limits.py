"""Computes the limits of a run from the user's options and the harness's description, in this one place."""

from __future__ import annotations

from pytest_autoresearch.core.experiment import Experiment
from pytest_autoresearch.core.run import Limits
from pytest_autoresearch.measure.harness import Harness
from pytest_autoresearch.settings import Settings

LEAST_STARTUP_SECONDS = 30.0


def limits_of(
    settings: Settings, harness: Harness, deadline_seconds: float | None = None, baseline: Experiment | None = None
) -> Limits:
    """The limits of a run.

    Args:
        deadline_seconds: The hard timeout; None for the default.
        baseline: The baseline, whose startup time sets the startup limit; None before the baseline.
    """
    budget = settings.budget_seconds or harness.budget_seconds
    memory = settings.memory_limit_mb or harness.memory_limit_mb
    deadline = deadline_seconds or max(2 * budget, budget + 120)
    startup = max(LEAST_STARTUP_SECONDS, deadline - budget)
    if baseline is not None:
        startup = max(LEAST_STARTUP_SECONDS, 2 * max(run.startup_seconds for run in baseline.own_runs))
    return Limits(budget, min(startup, deadline), deadline, memory)
