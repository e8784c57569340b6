"""Time limits: when a process is killed, and with which crash."""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path

from pytest_autoresearch.core.run import Crash, CrashClass, Limits

MODEL = "model.pt"
SETTLED_SECONDS = 0.5


@dataclass(frozen=True, slots=True)
class TimeLimit:
    """A time limit.

    Attributes:
        at: Seconds from the start of the process.
        crash: The crash of a process that reaches this limit.
    """

    at: float
    crash: Crash


def grace_seconds(limits: Limits) -> float:
    """Extra seconds after the budget: for the last step and for writing the model."""
    return max(2.0, 0.05 * limits.budget_seconds)


def has_left(out: Path) -> bool:
    """Whether a model is there and has not changed for half a second."""
    try:
        return time.time() - (out / MODEL).lstat().st_ctime > SETTLED_SECONDS
    except OSError:
        return False


def training_limit(limits: Limits, *, scored: bool, begun: float | None, left: bool = False) -> TimeLimit:
    """The first time limit that training reaches.

    Args:
        limits: The run's limits.
        scored: Whether a scorer measures the model; then training has to call `harness.begin()`.
        begun: When training called it, in seconds from the start of the process; None before.
        left: Whether the model is already there. Then there is no grace: training could only use the time to train on,
            and writes through a memory mapping do not show in the file's times.
    """
    deadline = TimeLimit(
        limits.deadline_seconds, Crash(CrashClass.TIMEOUT, f"killed after {limits.deadline_seconds:g} s")
    )
    startup, budget, grace = limits.startup_seconds, limits.budget_seconds, grace_seconds(limits)
    if not scored:
        total = startup + budget + grace
        parts = f"startup {startup:g} s, budget {budget:g} s, grace {grace:g} s"
        limit = TimeLimit(total, Crash(CrashClass.OVER_BUDGET, f"still running after {total:g} s ({parts})"))
    elif begun is None:
        message = f"training did not call harness.begin() within {startup:g} s"
        limit = TimeLimit(startup, Crash(CrashClass.TIMEOUT, message))
    else:
        limit = TimeLimit(begun + budget + (0.0 if left else grace), over_budget(limits))
    return min(deadline, limit, key=lambda each: each.at)


def over_budget(limits: Limits) -> Crash:
    """The crash of training that wrote its model too late, or not at all."""
    most = limits.budget_seconds + grace_seconds(limits)
    budget = f"the budget is {limits.budget_seconds:g} s"
    return Crash(CrashClass.OVER_BUDGET, f"no complete {MODEL} {most:g} s after training began; {budget}")


def scoring_limit(limits: Limits) -> TimeLimit:
    """The scorer's only limit."""
    deadline = limits.deadline_seconds
    return TimeLimit(deadline, Crash(CrashClass.TIMEOUT, f"the scorer was killed after {deadline:g} s"))
