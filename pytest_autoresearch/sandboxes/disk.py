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


class Written:
    """The files of one folder, including deleted files that are still open.

    Args:
        folder: A folder; what it contains now does not count. Other programs may use its file system too.
        limit_mb: The most that the run may write, in MiB.
        most_files: The most files and folders.
        every_seconds: The least time between two measurements; measuring many files is slow.
    """

    def __init__(self, folder: Path, limit_mb: float, most_files: int = MOST_FILES, every_seconds: float = 0.0) -> None:
        self._folder = folder
        self._limit_mb = limit_mb
        self._most_files = most_files
        self._every_seconds = every_seconds
        self._look_at = 0.0
        before = _files_below(folder, _MOST_BEFORE)
        self._files_before, self._bytes_before = len(before), sum(before.values())
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
        most = self._files_before + self._most_files
        held = _files_below(self._folder, most)
        if len(held) > most:
            return f"left more than {self._most_files:,} files in its folder"
        if self._free_mb - self._free() > self._limit_mb:  # rare, so looking at every open file is affordable
            held |= _deleted(pids, self._folder.stat().st_dev)
        size_mb = (sum(held.values()) - self._bytes_before) / _MIB
        if size_mb <= self._limit_mb:
            return ""
        return f"wrote {size_mb:,.0f} MiB into its folder; the limit is {self._limit_mb:,.0f} MiB"

    def _free(self) -> float:
        said = os.statvfs(self._folder)
        return said.f_bfree * said.f_frsize / _MIB


def _files_below(folder: Path, most: int) -> dict[int, int]:
    """Bytes on disk by inode, including folders; stops when there are too many."""
    found: dict[int, int] = {}
    folders = [os.fspath(folder)]
    while folders and len(found) <= most:
        # The run may delete a file or change its mode at any moment.
        with suppress(OSError), os.scandir(folders.pop()) as entries:
            for entry in entries:
                with suppress(OSError):
                    said = entry.stat(follow_symlinks=False)
                    found[said.st_ino] = said.st_blocks * _BLOCK_BYTES
                    if stat.S_ISDIR(said.st_mode):
                        folders.append(entry.path)
                if len(found) > most:
                    break
    return found


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
