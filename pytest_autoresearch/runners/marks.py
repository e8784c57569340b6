"""Whose a process is: a variable that every process of a run inherits, and the sweep that goes by it. Linux alone.

What a session leaves running that was killed together with its supervisors is watched by nobody; the next session ends
it. A mark names one session on this machine, since it was booted, in this container: neither one that is alive, nor a
neighbour's, nor one whose number was given again can be meant. A process that has changed its environment has no mark.
"""

from __future__ import annotations

import itertools
import os
import sys
import time
from contextlib import suppress
from pathlib import Path

from pytest_autoresearch.runners.supervisor import Family, Process, fell, look

MARK = "AUTORESEARCH_SESSION"
SWEEP_SECONDS = 3.0

_ENTRY = MARK.encode() + b"="
_runs = itertools.count(1)


def new_mark() -> str:
    """The value of `MARK` for one more run of this session."""
    return f"{_here()}:{_session(os.getpid())}:{next(_runs)}"


def marked(mark: str) -> dict[int, Process]:
    """What carries this mark now."""
    return {pid: process for pid, seen in _marks().items() if seen == mark and (process := look(pid))}


def sweep() -> str:
    """End what sessions that are gone have left running, with its descendants; costs a few milliseconds.

    Returns:
        A sentence on what was ended, or an empty string.
    """
    if sys.platform != "linux":
        return ""
    ended: set[int] = set()
    until = time.monotonic() + SWEEP_SECONDS
    while (left := _left()) and time.monotonic() < until:
        ended |= left.keys()
        fell(_left)
        time.sleep(0.01)
    if left:
        pids = " ".join(map(str, sorted(left)))
        return f"a session that was killed has left processes that could not be ended: type `kill -9 {pids}`"
    if not ended:
        return ""
    what = "a process" if len(ended) == 1 else f"{len(ended)} processes"
    return f"ended {what} that a session left running when it was killed"


def _left() -> dict[int, Process]:
    """What runs of sessions that are gone."""
    here, left = _here(), {}
    for pid, mark in _marks().items():
        place, _, rest = mark.rpartition(":")[0].partition(":")
        owner = rest.partition(":")[0]
        if place == here and owner.isdigit() and _session(int(owner)) != rest and (process := look(pid)):
            left[pid] = process
    return {pid: process for pid, process in (left | Family(left).find()).items() if process.runs} if left else {}


def _marks() -> dict[int, str]:
    """The mark of every process of this user that carries one."""
    found = {}
    for name in os.listdir("/proc"):
        # Gone in the meantime, or a process that another user's rights protect.
        with suppress(OSError):
            if name.isdigit() and os.stat(f"/proc/{name}").st_uid == os.geteuid():
                with open(f"/proc/{name}/environ", "rb", buffering=0) as file:
                    said = b"\0" + file.read()
                if (at := said.find(b"\0" + _ENTRY)) >= 0:
                    mark = said[at + 1 + len(_ENTRY) :].partition(b"\0")[0]
                    found[int(name)] = mark.decode("ascii", "replace")
    return found


def _here() -> str:
    """This machine since it was booted, and this container."""
    boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    return f"{boot}/{os.stat('/proc/self/ns/pid').st_ino}"


def _session(pid: int) -> str:
    """One process and no other: a number may be given again. Empty when it is gone."""
    process = look(pid)
    return f"{pid}:{process.started}" if process and process.runs else ""
