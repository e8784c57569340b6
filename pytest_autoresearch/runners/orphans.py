"""Finds and ends the processes that a killed session left running. Linux alone.

Every process of a run inherits an environment variable, the mark. If a session is killed together with its supervisors,
nothing watches its processes, so the next session ends them. A mark names the boot, the container, and the session's
process with its start time, so it never matches a live session, another container, or a reused process number. A
process that has changed its environment has no mark and is not found.
"""

from __future__ import annotations

import itertools
import os
import sys
import time
from contextlib import suppress
from pathlib import Path

from pytest_autoresearch.runners.supervisor import Descendants, Process, kill_all, look

MARK = "AUTORESEARCH_SESSION"
SWEEP_SECONDS = 3.0

_ENTRY = MARK.encode() + b"="
_runs = itertools.count(1)


def new_mark() -> str:
    """The value of `MARK` for one more run of this session."""
    return f"{_here()}:{_session(os.getpid())}:{next(_runs)}"


def marked(mark: str) -> dict[int, Process]:
    """The processes that have this mark now."""
    return {pid: process for pid, seen in _marks().items() if seen == mark and (process := look(pid))}


def sweep() -> str:
    """End the processes that killed sessions left running, and their descendants. Takes a few milliseconds.

    Returns:
        A sentence that says what was ended, or an empty string.
    """
    if sys.platform != "linux":
        return ""
    ended: set[int] = set()
    until = time.monotonic() + SWEEP_SECONDS
    while (left := _left()) and time.monotonic() < until:
        ended |= left.keys()
        kill_all(_left)
        time.sleep(0.01)
    if left:
        pids = " ".join(map(str, sorted(left)))
        return f"a killed session left processes that could not be ended: run `kill -9 {pids}`"
    if not ended:
        return ""
    what = "a process" if len(ended) == 1 else f"{len(ended)} processes"
    return f"ended {what} that a killed session left running"


def _left() -> dict[int, Process]:
    """The running processes of sessions that are gone."""
    here, left = _here(), {}
    for pid, mark in _marks().items():
        place, _, rest = mark.rpartition(":")[0].partition(":")
        owner = rest.partition(":")[0]
        if place == here and owner.isdigit() and _session(int(owner)) != rest and (process := look(pid)):
            left[pid] = process
    return {pid: process for pid, process in (left | Descendants(left).find()).items() if process.runs} if left else {}


def _marks() -> dict[int, str]:
    """The marks of this user's processes, by process number."""
    found = {}
    for name in os.listdir("/proc"):
        # The process has ended, or we may not read its environment.
        with suppress(OSError):
            if name.isdigit() and os.stat(f"/proc/{name}").st_uid == os.geteuid():
                with open(f"/proc/{name}/environ", "rb", buffering=0) as file:
                    said = b"\0" + file.read()
                if (at := said.find(b"\0" + _ENTRY)) >= 0:
                    mark = said[at + 1 + len(_ENTRY) :].partition(b"\0")[0]
                    found[int(name)] = mark.decode("ascii", "replace")
    return found


def _here() -> str:
    """Identifies this boot of this machine, and this container."""
    boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    return f"{boot}/{os.stat('/proc/self/ns/pid').st_ino}"


def _session(pid: int) -> str:
    """Identifies one process, even if its number is reused. Empty if the process is gone."""
    process = look(pid)
    return f"{pid}:{process.started}" if process and process.runs else ""
