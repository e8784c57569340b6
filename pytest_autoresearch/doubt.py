"""Whether a run says something of its program, or of what was wrong with the machine while it ran.

Pure: runs in, a sentence out. A run in doubt counts for nothing and is made again, whatever it came to.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from statistics import median

from pytest_autoresearch.experiment import Run

_DRAWING = ", drawing"  # how a process is marked that has no part in computing
RATE = 0.05  # by which the step rates of one commit may differ on a GPU
_HEAT = 0.05  # of the looks, beyond what the baseline saw
_POWER = 0.3
_HOT = ("thermal", "power brake", "hardware")
_MEMORY = ("oom", "over-memory")  # which a neighbour may be the reason for


def doubt(run: Run, others: Sequence[Run], baseline: Iterable[Run]) -> str:
    """What was wrong while it ran, in a sentence; empty where nothing was.

    Args:
        run: Just made.
        others: Of the same commit, made before.
        baseline: The baseline's, which show what is usual on this machine; empty while there are none.
    """
    if not run.device or (run.crash is not None and run.crash.reason not in _MEMORY):
        return ""  # on a CPU there is always somebody else; and a program that fails does so of its own
    usual = [one for one in baseline if not one.inconclusive]
    if said := _neighbours(run, usual):
        return said
    if run.crash is not None:
        return ""
    return _throttled(run, others, usual) or _out_of_step(run, others)


def _neighbours(run: Run, usual: Iterable[Run]) -> str:
    always = {_program(name) for one in usual for name in one.others or ()}
    strangers = [name for name in run.others or () if not name.endswith(_DRAWING) and _program(name) not in always]
    return f"{', '.join(strangers[:3])} computed on the same GPU" if strangers else ""


def _program(name: str) -> str:
    """A process's name without its number."""
    return name.partition(" (")[0]


def _throttled(run: Run, others: Sequence[Run], usual: Sequence[Run]) -> str:
    for cause, share in (run.throttling or {}).items():
        hot = cause.startswith(_HOT)
        # Heat is the machine's. How often the power cap holds is the program's, so that alone the same program tells.
        like = usual if hot else others
        if not hot and not like:
            continue
        most = max(((one.throttling or {}).get(cause, 0.0) for one in like), default=0.0)
        if share > most + (_HEAT if hot else _POWER):
            than = f"; at most {most:.0%} before" if like else ""
            return f"the GPU was held back ({cause}) in {share:.0%} of the looks{than}"
    return ""


def _out_of_step(run: Run, others: Sequence[Run]) -> str:
    """Whether it made its steps at another rate than most runs of the same program."""
    own, rates = _rate(run), [rate for rate in map(_rate, others) if rate]
    if not own or not rates:
        return ""
    near = [rate for rate in rates if abs(own - rate) <= RATE * rate]
    if 2 * len(near) >= len(rates):
        return ""
    middle = median(rates)
    return f"{own:.2f} steps a second, {abs(own / middle - 1):.0%} {'more' if own > middle else 'less'} than before"


def _rate(run: Run) -> float:
    """Steps a second; 0 where it did not say."""
    steps = run.metrics.get("num_steps", 0.0)
    return steps / run.training_seconds if run.training_seconds > 0 and run.metric is not None else 0.0
