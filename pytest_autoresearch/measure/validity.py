"""Decides whether a run measured its program, or was disturbed by the machine. A run in doubt is repeated.

Pure: runs in, a sentence out. A run that other processes disturbed is always repeated. For a cause that the program can
produce itself, only one run of an experiment is repeated, because otherwise a program could redraw unlucky results.
"""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Sequence

from pytest_autoresearch.core.run import CrashClass, Limits, Role, Run

OUT_OF_MEMORY = (CrashClass.OOM, CrashClass.OVER_MEMORY)  # the allocator's own error, and the limit from outside
_DRAWING = ", drawing"  # marks a process that does not compute
_RATE = 0.05  # the allowed relative difference in step rate between runs of one commit
_DEVIATIONS = 2.5  # or so many standard deviations of the baseline's step rate
_HEAT = 0.05  # the allowed increase in the share of looks
_POWER = 0.3
_HOT = ("thermal", "power brake", "hardware")
_EARLY = 0.1  # a share of the budget


def disturbed(run: Run, baseline: Iterable[Run]) -> str:
    """How other processes disturbed the run, as one sentence; empty if they did not.

    Args:
        run: The new run.
        baseline: The baseline's runs; processes that were on the GPU then are ignored.
    """
    if not run.device or (run.crash is not None and run.crash.kind not in OUT_OF_MEMORY):
        return ""  # a CPU always has other processes; and other crashes are the program's own fault
    always = {_program(name) for one in baseline if not one.inconclusive for name in one.others or ()}
    strangers = [name for name in run.others or () if not name.endswith(_DRAWING) and _program(name) not in always]
    return f"{', '.join(strangers[:3])} computed on the same GPU" if strangers else ""


def unsteady(run: Run, others: Sequence[Run], usual: Sequence[Run]) -> str:
    """An anomaly that the machine or the program itself may have caused, as one sentence; empty if there is none.

    Args:
        run: The new run.
        others: Earlier runs of the same commit.
        usual: Runs of the baseline and of the incumbent, which show what is usual on this machine.
    """
    if not run.device or run.crash is not None:
        return ""
    return _throttled(run, others, [one for one in usual if not one.inconclusive]) or _out_of_step(run, others, usual)


def honestly_out_of_memory(run: Run, limits: Limits) -> bool:
    """Whether the run ran out of memory early.

    Later, a program knows how its run goes: it could fill its memory after a bad run, to get another one.
    """
    out_of_memory = run.crash is not None and run.crash.kind in OUT_OF_MEMORY
    return out_of_memory and run.training_seconds <= _EARLY * limits.budget_seconds


def _program(name: str) -> str:
    """A process's name without its number."""
    return name.partition(" (")[0]


def _throttled(run: Run, others: Sequence[Run], usual: Sequence[Run]) -> str:
    for cause, share in (run.throttling or {}).items():
        hot = cause.startswith(_HOT)
        # Heat depends on the machine. The power cap depends on the program, so only runs of the same program count.
        like = [one for one in (*usual, *others) if not one.inconclusive] if hot else others
        if not like:
            continue
        most = max((one.throttling or {}).get(cause, 0.0) for one in like)
        if share > most + (_HEAT if hot else _POWER):
            return f"the GPU was throttled ({cause}) in {share:.0%} of the looks, before in at most {most:.0%}"
    return ""


def _out_of_step(run: Run, others: Sequence[Run], usual: Sequence[Run]) -> str:
    """A step rate that differs from most runs of the same program, as one sentence; else empty."""
    own, rates = _rate(run), [rate for rate in map(_rate, others) if rate]
    if not own or not rates:
        return ""
    allowed = max(_RATE, _DEVIATIONS * _spread(usual))
    near = [rate for rate in rates if abs(own - rate) <= allowed * rate]
    if 2 * len(near) >= len(rates):
        return ""
    middle = statistics.median(rates)
    return f"{own:.2f} steps a second, {abs(own / middle - 1):.0%} {'more' if own > middle else 'less'} than before"


def _spread(runs: Iterable[Run]) -> float:
    """The relative standard deviation of the baseline's step rate."""
    rates = [rate for run in runs if run.role is Role.BASELINE and (rate := _rate(run))]
    return statistics.stdev(rates) / statistics.fmean(rates) if len(rates) > 1 else 0.0


def _rate(run: Run) -> float:
    """Steps per second; 0 if unknown."""
    steps = run.metrics.get("num_steps", 0.0)
    return steps / run.training_seconds if run.training_seconds > 0 and run.metric is not None else 0.0
