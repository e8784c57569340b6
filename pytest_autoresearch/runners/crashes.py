"""Classifies a crash by the process's exit status and last lines of output. Pure.

The output of a candidate is untrusted. Here it can only choose the class of a crash; it never produces a metric.
"""

from __future__ import annotations

import re
import signal
from collections.abc import Iterable

from pytest_autoresearch.core.run import Crash

MESSAGE_CHARACTERS = 400
LAST_LINES = 40

_CLASSES = {
    "SyntaxError": "syntax",
    "IndentationError": "syntax",
    "TabError": "syntax",
    "ImportError": "import",
    "ModuleNotFoundError": "import",
    "MemoryError": "oom",
    "OutOfMemoryError": "oom",
}
_EXCEPTION = re.compile(r"(?:\w+\.)*(\w+)(?::.*)?")
_OUT_OF_MEMORY = re.compile(r"CUDA out of memory|DefaultCPUAllocator: can't allocate memory|std::bad_alloc")
_REJECTED = re.compile(r"(?:\w+: )?rejected: (.+)")  # some scorers print their program's name first
_NOT_FINITE = re.compile(r"\bnan\b|\binf\b|infinit|not finite|non-finite", re.IGNORECASE)


def exit_crash(exit_status: int | None, lines: Iterable[str]) -> Crash:
    """The crash of a process that ended by itself with `exit_status`: not 0, negative for a signal."""
    said = [line for line in lines if line.strip()]
    last = said[-1].strip() if said else ""
    raised, found_at = _exception(said)
    if exit_status == 1 and last == "FAIL":
        return Crash("nan", "training printed FAIL: the loss is not a number, or far too large")
    if exit_status is not None and exit_status > 0 and raised:
        named = _EXCEPTION.fullmatch(raised)
        if named and named[1] in _CLASSES:
            return Crash(_CLASSES[named[1]], _short(raised))
    # Also below the traceback: the message may have several lines, and an abort in C++ has no traceback.
    for line in said[max(found_at, len(said) - LAST_LINES) :]:
        if _OUT_OF_MEMORY.search(line):
            return Crash("oom", _short(line))
    if exit_status is not None and exit_status < 0:
        return Crash(f"signal {-exit_status}", _short(f"killed by {_signal_name(-exit_status)}; last output: {last}"))
    status = "unknown" if exit_status is None else exit_status
    return Crash(f"exit {status}", _short(raised or last or "no output"))


def score_crash(exit_status: int | None, lines: Iterable[str]) -> Crash:
    """The crash of a scorer that failed; the message is the scorer's own sentence."""
    failed = exit_crash(exit_status, lines)
    sentence = failed.message
    if rejected := _REJECTED.fullmatch(sentence):
        return Crash("rejected", rejected[1])
    return Crash("nan" if failed.reason == "nan" or _NOT_FINITE.search(sentence) else "no-metric", sentence)


def _exception(lines: list[str]) -> tuple[str, int]:
    """The line that names the exception of the last traceback, and its index; empty and 0 without a traceback."""
    raised, found_at, inside = "", 0, False
    for index, line in enumerate(lines):
        # A syntax error in the script itself has no "Traceback" heading.
        if line.startswith(("Traceback (most recent call last)", '  File "')):
            inside = True
        elif inside and not line.startswith(" "):
            # A compiler's message may contain `File` lines too, followed by its own text.
            if not raised or _EXCEPTION.fullmatch(line.strip()):
                raised, found_at = line.strip(), index
            inside = False
    return raised, found_at


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"


def _short(line: str) -> str:
    line = " ".join(line.split())
    return line if len(line) <= MESSAGE_CHARACTERS else line[: MESSAGE_CHARACTERS - 1] + "…"
