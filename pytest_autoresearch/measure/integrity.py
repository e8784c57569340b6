"""Whether files that decide are still what they were when the session began: looked at, not read.

A look costs microseconds a file, so that it can come before every verdict. Whoever writes to a file changes its time of
change, which only the kernel sets. Knows paths and nothing of what they are for.
"""

from __future__ import annotations

import os
import shutil
import stat
from collections.abc import Iterable
from pathlib import Path

_Look = tuple[int, ...]


def remove_bytecode(paths: Iterable[Path]) -> None:
    """Remove what Python keeps of compiled modules below the paths: compiled when, and from what, nobody knows."""
    for folder in [inside for path in paths for inside in path.rglob("__pycache__")]:
        shutil.rmtree(folder, ignore_errors=True)


class Frozen:
    """Files as they are now, to be compared with what they are later.

    What Python keeps of compiled modules (`__pycache__`) is left out: it comes by itself. A trusted process must
    therefore not read it there either (`PYTHONPYCACHEPREFIX`).

    Args:
        paths: Files, and folders with all that is in them, now or later. One that is missing must stay so.
        but: Files and folders among them that may change.
    """

    def __init__(self, paths: Iterable[Path], but: Iterable[Path] = ()) -> None:
        self._paths = tuple(paths)
        self._but = frozenset(map(os.path.abspath, but))
        self._before = self._look()

    def changed(self) -> list[Path]:
        """What was written, replaced, added or taken away since, sorted."""
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
        # The user may keep a whole folder elsewhere.
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
    """Kind and mode, device, inode, size, times of writing and of change; of a link, its target's too. Empty: gone."""
    try:
        own = os.lstat(name)
    except OSError:
        return ()
    if stat.S_ISDIR(own.st_mode):  # what is in it is looked at by itself; its times change with what may
        return own.st_mode, own.st_dev, own.st_ino
    look = (own.st_mode, own.st_dev, own.st_ino, own.st_size, own.st_mtime_ns, own.st_ctime_ns)
    if not stat.S_ISLNK(own.st_mode):
        return look
    try:
        aim = os.stat(name)
    except OSError:
        return look
    return *look, aim.st_dev, aim.st_ino, aim.st_size, aim.st_mtime_ns, aim.st_ctime_ns
