"""Measures how much a run has written into its folder, while it runs, because a bind mount has no quota.

Between two measurements a run can fill the disk. Inside the sandbox, the size of one file is limited.
"""

from __future__ import annotations

import os
import stat
import time
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

_MIB = 1024 * 1024
_BLOCK_BYTES = 512  # the unit of st_blocks on every file system
MOST_FILES = 10_000  # so that a measurement is fast
_MOST_BEFORE = 1_000_000
_MOST_DEPTH = 200
_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


class Written:
    """The files of one folder, including deleted files that are still open.

    Args:
        folder: A folder; what it contains now does not count. Other programs may use its file system too.
        limit_mb: The most that the run may write, in MiB.
        most_files: The most names of files and folders; a file with several names counts for each.
        every_seconds: The least time between two measurements; measuring many files is slow.
    """

    def __init__(self, folder: Path, limit_mb: float, most_files: int = MOST_FILES, every_seconds: float = 0.0) -> None:
        self._folder = folder
        self._limit_mb = limit_mb
        self._most_files = most_files
        self._every_seconds = every_seconds
        self._look_at = 0.0
        before = _Files(folder, _MOST_BEFORE)
        self._names_before, self._bytes_before = before.names, sum(before.sizes.values())
        self._free_mb = self._free()

    def over(self, pids: Iterable[int]) -> str:
        """An error message if the run has exceeded a limit, else an empty string.

        Args:
            pids: The run's processes.
        """
        now = time.monotonic()
        if now < self._look_at:
            return ""
        self._look_at = now + self._every_seconds
        found = _Files(self._folder, self._names_before + self._most_files)
        if found.names > self._names_before + self._most_files:
            return f"left more than {self._most_files:,} files in its folder"
        if found.why:
            return found.why
        held = found.sizes
        if self._free_mb - self._free() > self._limit_mb:  # rare, so looking at every open file is affordable
            held |= _deleted(pids, self._folder.stat().st_dev)
        size_mb = (sum(held.values()) - self._bytes_before) / _MIB
        if size_mb <= self._limit_mb:
            return ""
        return f"wrote {size_mb:,.0f} MiB into its folder; the limit is {self._limit_mb:,.0f} MiB"

    def _free(self) -> float:
        said = os.statvfs(self._folder)
        return said.f_bfree * said.f_frsize / _MIB


class _Files:
    """Everything below a folder, measured in a bounded time.

    Folders are opened relative to their open parent, because a path that is longer than the kernel allows cannot be
    looked at, and a run can make such paths.

    Args:
        folder: The folder.
        most: Measuring stops at more names than this.

    Attributes:
        names: The number of names of files and folders.
        sizes: Bytes on disk by inode, including folders; a file with several names is there once.
        why: Why some files could not be measured, as an error message; empty if all were.
    """

    def __init__(self, folder: Path, most: int) -> None:
        self.names = 0
        self.sizes: dict[int, int] = {}
        self.why = ""
        self._most = most
        with suppress(OSError):
            self._measure(os.open(folder, _FOLDER), 0)

    def _measure(self, folder: int, depth: int) -> None:
        """Measure an open folder, and close it."""
        try:
            for name in self._inside(folder):
                if depth >= _MOST_DEPTH:
                    self.why = f"made folders in folders, {_MOST_DEPTH} deep"
                if self.why or self.names > self._most:
                    return
                try:
                    self._measure(os.open(name, _FOLDER, dir_fd=folder), depth + 1)
                except PermissionError:
                    self.why = "made a folder that cannot be read"
                except OSError:  # the run has deleted it, or replaced it by a file
                    continue
        finally:
            os.close(folder)

    def _inside(self, folder: int) -> list[str]:
        """Measure the entries of a folder; returns the names of folders."""
        folders = []
        with os.scandir(folder) as entries:
            for entry in entries:
                self.names += 1
                if self.names > self._most:
                    break
                with suppress(OSError):  # the run has deleted it
                    said = entry.stat(follow_symlinks=False)
                    self.sizes[said.st_ino] = said.st_blocks * _BLOCK_BYTES
                    if stat.S_ISDIR(said.st_mode):
                        folders.append(entry.name)
        return folders


def _deleted(pids: Iterable[int], device: int) -> dict[int, int]:
    """Bytes of deleted files on this device that these processes hold open, by inode."""
    found: dict[int, int] = {}
    for pid in pids:
        with suppress(OSError):
            for name in os.listdir(f"/proc/{pid}/fd"):
                with suppress(OSError):
                    said = os.stat(f"/proc/{pid}/fd/{name}")
                    if stat.S_ISREG(said.st_mode) and said.st_nlink == 0 and said.st_dev == device:
                        found[said.st_ino] = said.st_blocks * _BLOCK_BYTES
    return found
