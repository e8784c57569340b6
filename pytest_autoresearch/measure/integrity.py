"""Detects changes of frozen files since the session began, from their metadata and without reading them.

A check takes microseconds per file, so that every verdict can be preceded by one. Writing to a file updates its ctime,
which only the kernel can set. Knows paths, but not their purpose.
"""

from __future__ import annotations

import os
import shutil
import stat
from collections.abc import Iterable
from pathlib import Path

_Look = tuple[int, ...]


def remove_bytecode(paths: Iterable[Path]) -> None:
    """Remove every `__pycache__` below the paths, because its source and age are unknown."""
    for folder in [inside for path in paths for inside in path.rglob("__pycache__")]:
        shutil.rmtree(folder, ignore_errors=True)


class Frozen:
    """A snapshot of files, to detect later changes.

    It ignores `__pycache__`, which Python writes by itself. So a trusted process must not read bytecode from there
    (see `PYTHONPYCACHEPREFIX`).

    Args:
        paths: Files, and folders with everything in them, now and later. A missing path must stay missing.
        but: Files and folders among them that may change.
    """

    def __init__(self, paths: Iterable[Path], but: Iterable[Path] = ()) -> None:
        self._paths = tuple(paths)
        self._but = frozenset(map(os.path.abspath, but))
        self._before = self._look()

    def changed(self) -> list[Path]:
        """The paths that were written, replaced, added or removed since, sorted."""
        now = self._look()
        if now == self._before:
            return []
        names = self._before.keys() | now.keys()
        return sorted(Path(name) for name in names if now.get(name) != self._before.get(name))

    def __len__(self) -> int:
        return len(self._before)

    def _look(self) -> dict[str, _Look]:
        found: dict[str, _Look] = {}
        given = [os.path.abspath(path) for path in self._paths]
        # A given path may be a symbolic link to a folder elsewhere.
        waiting = [*given, *(os.path.realpath(name) for name in given if os.path.islink(name))]
        while waiting:
            name = waiting.pop()
            if name in self._but or os.path.basename(name) == "__pycache__":
                continue
            found[name] = look = _look(name)
            if look and stat.S_ISDIR(look[0]):
                try:
                    waiting += [os.path.join(name, inside) for inside in os.listdir(name)]
                except OSError:
                    found[name] = ()
        return found


def _look(name: str) -> _Look:
    """Mode, device, inode, size, mtime and ctime, for a link also of its target; empty if the path is missing."""
    try:
        own = os.lstat(name)
    except OSError:
        return ()
    if stat.S_ISDIR(own.st_mode):  # not its times, which change with files in it that may change
        return own.st_mode, own.st_dev, own.st_ino
    look = (own.st_mode, own.st_dev, own.st_ino, own.st_size, own.st_mtime_ns, own.st_ctime_ns)
    if not stat.S_ISLNK(own.st_mode):
        return look
    try:
        aim = os.stat(name)
    except OSError:
        return look
    return *look, aim.st_dev, aim.st_ino, aim.st_size, aim.st_mtime_ns, aim.st_ctime_ns
