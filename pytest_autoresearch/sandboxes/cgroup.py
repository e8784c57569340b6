"""Control groups for the processes of one sandbox, if this user is root and may create them.

If the machine allows no groups, nothing here raises. Then only the resource limits of each process apply, and the
kernel does not enforce the limit on the number of processes for root.
"""

from __future__ import annotations

import itertools
import os
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from pytest_autoresearch.sandboxes.base import Allowance

_PREFIX = "autoresearch-"
_FORGOTTEN_SECONDS = 24 * 3600
_numbers = itertools.count()


class Group:
    """One control group, in each hierarchy that its limits need.

    Attributes:
        join_files: A process joins the group by writing 0 to each of these files.
    """

    def __init__(self, allowance: Allowance) -> None:
        wanted = {"pids": ("pids.max", "pids.max", allowance.processes)}
        if allowance.memory_mb is not None:
            wanted["memory"] = ("memory.max", "memory.limit_in_bytes", int(allowance.memory_mb * 1024 * 1024))
        name = f"{_PREFIX}{os.getpid()}-{next(_numbers)}"
        self._folders: set[Path] = set()
        for controller, (second, first, value) in wanted.items() if os.geteuid() == 0 else ():
            with suppress(OSError):
                for parent in _parents(controller):
                    _sweep(parent)
                    folder = parent / name
                    folder.mkdir(exist_ok=True)
                    self._folders.add(folder)
                    (folder / (second if (folder / second).exists() else first)).write_text(str(value))
        self._memory = [folder for folder in self._folders if (folder / "memory.stat").exists()]
        self.join_files = tuple(str(folder / "cgroup.procs") for folder in sorted(self._folders))

    def memory_bytes(self) -> int | None:
        """The memory of all processes of the group now, without files that are only cached; None if unknown.

        This includes shared memory that no process has mapped any more. The kernel's own peak is of no use here: it
        includes cached files, so that it reaches the limit in every run that reads or writes much.
        """
        for folder in self._memory:
            with suppress(OSError, ValueError):
                said = dict(line.split() for line in (folder / "memory.stat").read_text().splitlines())
                first, second = ("total_rss", "total_shmem"), ("anon", "shmem")
                return sum(int(said[name]) for name in (first if first[0] in said else second))
        return None

    def close(self) -> None:
        """Remove the group; retries, because a process that has just ended may stay in it for a moment."""
        for _ in range(50):
            for folder in tuple(self._folders):
                with suppress(OSError):
                    folder.rmdir()
                    self._folders.discard(folder)
            if not self._folders:
                return
            time.sleep(0.002)


def _parents(controller: str) -> Iterator[Path]:
    """The parent for a new group: this process's group, or its nearest ancestor whose children can have this limit."""
    lines = (line.split(":", 2) for line in Path("/proc/self/cgroup").read_text().splitlines())
    paths = {name: path for _, names, path in lines for name in names.split(",")}  # the name is empty in version 2
    first, second = _mounted("cgroup", controller), _mounted("cgroup2")
    if controller in paths and first:
        yield _inside(first, paths[controller])
    elif "" in paths and second:
        own = _inside(second, paths[""])
        for folder in (own, *own.parents):
            if not folder.is_relative_to(second[0]):
                return
            if controller in (folder / "cgroup.subtree_control").read_text().split():
                yield folder
                return


def _mounted(kind: str, option: str = "") -> tuple[Path, str] | None:
    """Where a hierarchy is mounted, and which of its groups is at the mount point."""
    for line in Path("/proc/self/mountinfo").read_text().splitlines():
        before, _, after = line.partition(" - ")
        fields, (found, _, options) = before.split(), after.split(" ", 2)
        if found == kind and (not option or option in options.split(",")):
            return Path(fields[4]), fields[3]
    return None


def _inside(mounted: tuple[Path, str], path: str) -> Path:
    place, shown = mounted
    inside = path.removeprefix(shown) if shown != "/" else path
    folder = place / inside.lstrip("/")
    return folder if folder.is_dir() else place


def _sweep(parent: Path) -> None:
    """Remove old groups that killed sessions left. A group that is a day old and empty is not in use."""
    for folder in parent.glob(f"{_PREFIX}*"):
        with suppress(OSError):
            if time.time() - folder.stat().st_mtime > _FORGOTTEN_SECONDS:
                folder.rmdir()
