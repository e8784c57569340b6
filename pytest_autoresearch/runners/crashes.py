"""Classifies a crash by the process's exit status and last lines of output. Pure.

The output of a candidate is untrusted. Here it can only choose the class of a crash; it never produces a metric.
"""

from __future__ import annotations

import re
import signal
from collections.abc import Iterable

from pytest_autoresearch.core.run import Crash, CrashClass

MESSAGE_CHARACTERS = 400
LAST_LINES = 40

_CLASSES = {
    "SyntaxError": CrashClass.SYNTAX,
    "IndentationError": CrashClass.SYNTAX,
    "TabError": CrashClass.SYNTAX,
    "ImportError": CrashClass.IMPORT,
    "ModuleNotFoundError": CrashClass.IMPORT,
    "MemoryError": CrashClass.OOM,
    "OutOfMemoryError": CrashClass.OOM,
}
_EXCEPTION = re.compile(r"(?:\w+\.)*(\w+)(?::.*)?")
_OUT_OF_MEMORY = re.compile(r"CUDA out of memory|DefaultCPUAllocator: can't allocate memory|std::bad_alloc")
_REJECTED = re.compile(r"(?:\w+: )?rejected: (.+)")  # some scorers print their program's name first
# torchrun marks the lines of a rank's traceback, and reports the rank that failed first, with a traceback of its own.
_OF_RANK = re.compile(r"\[rank(\d+)\]: ?(.*)")
_RANK_FAILED = re.compile(r".* torch/distributed/elastic/\S+ failed \(exitcode: (-?\d+)\)")
_NOT_FINITE = re.compile(r"\bnan\b|\binf\b|infinit|not finite|non-finite", re.IGNORECASE)


def exit_crash(exit_status: int | None, lines: Iterable[str]) -> Crash:
    """The crash of a process that ended by itself with `exit_status`: not 0, negative for a signal."""
    said, rank_status = _of_failed_rank([line for line in lines if line.strip()])
    exit_status = exit_status if rank_status is None else rank_status
    last = said[-1].strip() if said else ""
    raised, found_at = _exception(said)
    if exit_status == 1 and last == "FAIL":
        return Crash(CrashClass.NAN, "training printed FAIL: the loss is not a number, or far too large")
    if exit_status is not None and exit_status > 0 and raised:
        named = _EXCEPTION.fullmatch(raised)
        if named and named[1] in _CLASSES:
            return Crash(_CLASSES[named[1]], _short(raised))
    # Also below the traceback: the message may have several lines, and an abort in C++ has no traceback.
    for line in said[max(found_at, len(said) - LAST_LINES) :]:
        if _OUT_OF_MEMORY.search(line):
            return Crash(CrashClass.OOM, _short(line))
    if exit_status is not None and exit_status < 0:
        said_last = _short(f"killed by {_signal_name(-exit_status)}; last output: {last}")
        return Crash(CrashClass.SIGNAL, said_last, -exit_status)
    return Crash(CrashClass.EXIT, _short(raised or last or "no output"), exit_status)


def score_crash(exit_status: int | None, lines: Iterable[str]) -> Crash:
    """The crash of a scorer that failed; the message is the scorer's own sentence."""
    failed = exit_crash(exit_status, lines)
    sentence = failed.message
    if rejected := _REJECTED.fullmatch(sentence):
        return Crash(CrashClass.REJECTED, rejected[1])
    is_nan = failed.kind is CrashClass.NAN or _NOT_FINITE.search(sentence)
    return Crash(CrashClass.NAN if is_nan else CrashClass.NO_METRIC, sentence)


def _of_failed_rank(lines: list[str]) -> tuple[list[str], int | None]:
    """The lines without torchrun's own, and the exit status of the rank that failed first; else all lines, and None."""
    failed = ((index, found) for index, line in enumerate(lines) if (found := _RANK_FAILED.match(line)))
    index, found = next(failed, (0, None))
    if found is None:
        return lines, None
    of_ranks = [marked for line in lines[:index] if (marked := _OF_RANK.fullmatch(line))]
    first = [marked[2] for marked in of_ranks if marked[1] == of_ranks[0][1]]
    return first or lines[:index], int(found[1])


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
