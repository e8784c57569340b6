"""The files of /proc that are made for a sandbox, in place of the kernel's counters of the whole machine.

A process can change such a counter by a number of its choice, for example by starting so many processes, and a later
process in another sandbox could read the number. The counters that programs use (memory, load, time) stay.
"""

from __future__ import annotations

import os
from pathlib import Path

_EMPTY = (
    *("vmstat", "diskstats", "interrupts", "softirqs", "schedstat", "zoneinfo", "buddyinfo", "pagetypeinfo"),
    *("slabinfo", "vmallocinfo", "timer_list", "sched_debug", "locks", "kpagecount", "kpageflags", "kpagecgroup"),
    *("pressure/cpu", "pressure/io", "pressure/memory", "pressure/irq"),
    *("sys/fs/dentry-state", "sys/fs/inode-nr", "sys/fs/inode-state", "sys/fs/file-nr"),
)


def files(root: Path = Path("/")) -> dict[str, str]:
    """The content of each file by its path: no counters, but the number of processors and the time of the start."""
    made = {str(path): "" for name in _EMPTY if (path := root / "proc" / name).exists()}
    stat = root / "proc" / "stat"
    if stat.exists():
        zeros = " ".join("0" * 10)
        lines = [f"cpu  {zeros}", *(f"cpu{number} {zeros}" for number in range(os.cpu_count() or 1))]
        lines += [line for line in stat.read_text().splitlines() if line.startswith("btime")]
        made[str(stat)] = "\n".join([*lines, "ctxt 0", "processes 0", "procs_running 1", "procs_blocked 0", ""])
    return made
