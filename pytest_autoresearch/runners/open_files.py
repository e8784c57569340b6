"""Counts the open files of a process tree, so that looking at each of them is bounded. Linux alone."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from contextlib import suppress
from itertools import islice

from pytest_autoresearch.runners.supervisor import Process

OPEN_FILES = 50_000  # data loaders for eight devices have a few thousand


def count_open_files(processes: Iterable[Process], most: int = OPEN_FILES) -> int:
    """The number of open files of these processes; stops above `most`."""
    count = 0
    for process in processes:
        with suppress(OSError):
            # Since Linux 6.2 the size of the folder is the number of its entries.
            size = os.stat(f"/proc/{process.pid}/fd").st_size
            count += size or sum(1 for _ in islice(open_files(process.pid), most + 1 - count))
        if count > most:
            break
    return count


def open_files(pid: int) -> Iterator[str]:
    """The paths of a process's open files in /proc; read one after the other, because there may be many.

    Raises:
        OSError: The process is gone.
    """
    with os.scandir(f"/proc/{pid}/fd") as entries:
        for entry in entries:
            yield entry.path
