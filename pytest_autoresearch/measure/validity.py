"""Whether a run says something of its program, or of what was wrong with the machine while it ran.

Pure: runs in, a sentence out. A run in doubt is made again. What somebody else did to it, it may say as often as it
happens; what a program can bring about itself earns it one more run and not two: else an unlucky number could be had
drawn again.
"""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Sequence

from pytest_autoresearch.core.run import CrashClass, Limits, Role, Run

OUT_OF_MEMORY = (CrashClass.OOM, CrashClass.OVER_MEMORY)  # the allocator's own error, and ours from outside
_DRAWING = ", drawing"  # how a process is marked that has no part in computing
_RATE = 0.05  # by which the step rates of one commit may differ on a GPU, and so many deviations of the baseline's
_DEVIATIONS = 2.5
_HEAT = 0.05  # of the looks, beyond what is usual
_POWER = 0.3
_HOT = ("thermal", "power brake", "hardware")
_EARLY, _FULL = 0.1, 0.9  # shares of the budget and of the memory limit


def disturbed(run: Run, baseline: Iterable[Run]) -> str:
    """What others did to it, in a sentence; empty where nobody did anything.

    Args:
        run: Just made.
        baseline: The baseline's runs, which show who is always there.
    """
    if not run.device or (run.crash is not None and run.crash.kind not in OUT_OF_MEMORY):
        return ""  # on a CPU there is always somebody else; and a program that fails does so of its own
    always = {_program(name) for one in baseline if not one.inconclusive for name in one.others or ()}
    strangers = [name for name in run.others or () if not name.endswith(_DRAWING) and _program(name) not in always]
    return f"{', '.join(strangers[:3])} computed on the same GPU" if strangers else ""


def unsteady(run: Run, others: Sequence[Run], usual: Sequence[Run]) -> str:
    """What was odd about it that may be the machine's fault and may be its own, in a sentence; empty where nothing was.

    Args:
        run: Just made.
        others: Of the same commit, made before.
        usual: Those of the baseline and of the incumbent, which show what is usual on this machine.
    """
    if not run.device or run.crash is not None:
        return ""
    return _throttled(run, others, [one for one in usual if not one.inconclusive]) or _out_of_step(run, others, usual)


def honestly_out_of_memory(run: Run, limits: Limits) -> bool:
    """Whether it ran out of memory before it could know how it would come out, or was seen to hold that much.

    A program that only says so, after a bad run, would like to draw again.
    """
    if run.crash is None or run.crash.kind not in OUT_OF_MEMORY:
        return False
    early = run.training_seconds <= _EARLY * limits.budget_seconds
    return early or run.peak_memory_mb >= _FULL * limits.memory_limit_mb


def _program(name: str) -> str:
    """A process's name without its number."""
    return name.partition(" (")[0]


def _throttled(run: Run, others: Sequence[Run], usual: Sequence[Run]) -> str:
    for cause, share in (run.throttling or {}).items():
        hot = cause.startswith(_HOT)
        # Heat is the machine's. How often the power cap holds is the program's, so that alone the same program tells.
        like = [one for one in (*usual, *others) if not one.inconclusive] if hot else others
        if not like:
            continue
        most = max((one.throttling or {}).get(cause, 0.0) for one in like)
        if share > most + (_HEAT if hot else _POWER):
            return f"the GPU was held back ({cause}) in {share:.0%} of the looks; at most {most:.0%} before"
    return ""


def _out_of_step(run: Run, others: Sequence[Run], usual: Sequence[Run]) -> str:
    """Whether it made its steps at another rate than most runs of the same program."""
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
    """Steps a second; 0 where it did not say."""
    steps = run.metrics.get("num_steps", 0.0)
    return steps / run.training_seconds if run.training_seconds > 0 and run.metric is not None else 0.0
