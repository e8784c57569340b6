"""Time limits: when a process is killed, and with which crash."""

from __future__ import annotations

import stat
from dataclasses import dataclass
from pathlib import Path

from pytest_autoresearch.core.run import Crash, CrashClass, Limits

MODEL = "model.pt"


@dataclass(frozen=True, slots=True)
class TimeLimit:
    """A time limit.

    Attributes:
        at: Seconds from the start of the process.
        crash: The crash of a process that reaches this limit.
        fence: Where a process may pass this limit: it is asked while the process is stopped. None: it may not.
    """

    at: float
    crash: Crash
    fence: Fence | None = None


@dataclass(slots=True)
class Fence:
    """The end of the budget. Training ends there if its model is there; otherwise it has the grace to write one.

    Training writes the model under another name and renames it, so a model that exists is complete. It does not matter
    when it was last changed: a program could touch it again and again, to get the grace as well.

    Attributes:
        out: The run's folder.
        passed: Whether training has passed the fence without a model.
    """

    out: Path
    passed: bool = False

    def passes(self) -> bool:
        """Look for the model once, while training is stopped."""
        try:
            self.passed = not stat.S_ISREG((self.out / MODEL).lstat().st_mode)
        except OSError:
            self.passed = True
        return self.passed


def grace_seconds(limits: Limits) -> float:
    """Extra seconds after the budget: for the last step and for writing the model."""
    return max(2.0, 0.05 * limits.budget_seconds)


def training_limit(limits: Limits, begun: float | None, fence: Fence | None) -> TimeLimit:
    """The first time limit that training reaches.

    Args:
        limits: The run's limits.
        begun: When training called `harness.begin()`, in seconds from the start of the process; None before.
        fence: The end of the budget if a scorer measures the model; then training has to call `harness.begin()`.
    """
    deadline = TimeLimit(
        limits.deadline_seconds, Crash(CrashClass.TIMEOUT, f"killed after {limits.deadline_seconds:g} s")
    )
    startup, budget, grace = limits.startup_seconds, limits.budget_seconds, grace_seconds(limits)
    if fence is None:
        total = startup + budget + grace
        parts = f"startup {startup:g} s, budget {budget:g} s, grace {grace:g} s"
        limit = TimeLimit(total, Crash(CrashClass.OVER_BUDGET, f"still running after {total:g} s ({parts})"))
    elif begun is None:
        message = f"training did not call harness.begin() within {startup:g} s"
        limit = TimeLimit(startup, Crash(CrashClass.TIMEOUT, message))
    elif fence.passed:
        limit = TimeLimit(begun + budget + grace, over_budget(limits))
    else:
        limit = TimeLimit(begun + budget, over_budget(limits), fence)
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
