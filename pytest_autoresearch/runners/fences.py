"""The limits in time: when a process is ended if it has not ended by itself, and what that is called."""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path

from pytest_autoresearch.core.run import Crash, CrashClass, Limits

MODEL = "model.pt"
SETTLED_SECONDS = 0.5


@dataclass(frozen=True, slots=True)
class Fence:
    """A moment at which a process is ended.

    Attributes:
        at: In seconds from its start.
        crash: Why it was ended.
    """

    at: float
    crash: Crash


def grace_seconds(limits: Limits) -> float:
    """What may lie beyond the budget before a process is ended: a last step, and writing the model."""
    return max(2.0, 0.05 * limits.budget_seconds)


def has_left(out: Path) -> bool:
    """Whether a model lies there that nobody has written to for a moment."""
    try:
        return time.time() - (out / MODEL).lstat().st_ctime > SETTLED_SECONDS
    except OSError:
        return False


def training_fence(limits: Limits, *, scored: bool, begun: float | None, left: bool = False) -> Fence:
    """The first limit that training meets.

    Args:
        limits: What the run may use.
        scored: Whether training only leaves a model, and so has to say when it begins.
        begun: When it said so, in seconds from the start of the process; None before.
        left: Whether its model is there already: then the grace is for nothing but training on. What is written through
            a mapping does not show in the file's times.
    """
    deadline = Fence(limits.deadline_seconds, Crash(CrashClass.TIMEOUT, f"killed after {limits.deadline_seconds:g} s"))
    startup, budget, grace = limits.startup_seconds, limits.budget_seconds, grace_seconds(limits)
    if not scored:
        total = startup + budget + grace
        parts = f"startup {startup:g} s, budget {budget:g} s, grace {grace:g} s"
        fence = Fence(total, Crash(CrashClass.OVER_BUDGET, f"still running after {total:g} s ({parts})"))
    elif begun is None:
        message = f"training did not begin within {startup:g} s; it begins by calling harness.begin()"
        fence = Fence(startup, Crash(CrashClass.TIMEOUT, message))
    else:
        fence = Fence(begun + budget + (0.0 if left else grace), over_budget(limits))
    return min(deadline, fence, key=lambda each: each.at)


def over_budget(limits: Limits) -> Crash:
    """What training is told that left its model too late, or not at all."""
    most = limits.budget_seconds + grace_seconds(limits)
    budget = f"the budget is {limits.budget_seconds:g} s"
    return Crash(CrashClass.OVER_BUDGET, f"no complete {MODEL} {most:g} s after training began; {budget}")


def scoring_fence(limits: Limits) -> Fence:
    """The scorer's only limit."""
    deadline = limits.deadline_seconds
    return Fence(deadline, Crash(CrashClass.TIMEOUT, f"the scorer was killed after {deadline:g} s"))
