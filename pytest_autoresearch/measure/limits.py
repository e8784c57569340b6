"""Computes the limits of a run from the user's options and the harness's description, in this one place."""

from __future__ import annotations

import math

from pytest_autoresearch.core.experiment import Experiment
from pytest_autoresearch.core.run import Limits
from pytest_autoresearch.measure.harness import Harness
from pytest_autoresearch.settings import Settings

LEAST_STARTUP_SECONDS = 30.0
SPARE_CPU_SECONDS = 30.0  # as much as one core can do in the least startup time
SPARE_GPU_SECONDS = 10.0  # tuning of kernels that the baseline did not have


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
    return Limits(budget, min(startup, deadline), deadline, memory, *_startup_use(baseline))


def _startup_use(baseline: Experiment | None) -> tuple[float, float]:
    """Seconds of processors and of GPUs before training begins: twice the baseline's, and some more. Else infinite.

    A program could train on text that lies around before it has rows, and on all cores and GPUs at once. The baseline
    compiled too.
    """
    runs = baseline.own_runs if baseline else ()
    cpu = [run.startup_cpu_seconds for run in runs if run.startup_cpu_seconds is not None]
    gpu = [run.startup_gpu_seconds for run in runs if run.startup_gpu_seconds is not None]
    return (
        2 * max(cpu) + SPARE_CPU_SECONDS if cpu else math.inf,
        2 * max(gpu) + SPARE_GPU_SECONDS if gpu else math.inf,
    )
