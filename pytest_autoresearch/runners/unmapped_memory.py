"""Measures memory that a tree uses but has not mapped: memory files, and files in its private /tmp and /dev/shm.

Shared memory stays in use when a process tells the kernel that it does not need its pages, and then no page table shows
it. Where a control group counts memory, that count is used as well; see `sandboxes/cgroup.py`.
"""

from __future__ import annotations

import os
import stat
import time
from collections.abc import Callable, Collection, Iterator
from contextlib import suppress
from itertools import islice

from pytest_autoresearch.runners.open_files import OPEN_FILES, open_files
from pytest_autoresearch.runners.supervisor import Process

PLACES = ("/tmp", "/dev/shm")
SLACK_BYTES = 16 * 1024 * 1024  # other programs of the machine use shared memory too
MAPS_SECONDS = 0.5  # the most time for one look at what is mapped
SHARE = 0.03  # the share of time that looks at open files, and looks at what is mapped, may take
_BLOCK_BYTES = 512  # the unit of st_blocks on every file system


class UnmappedMemory:
    """The unmapped memory of one tree. Create it before the tree is started."""

    def __init__(self) -> None:
        self._device = _device_of_memory_files()
        self._before = _shared_bytes_of_machine()
        self._files = _Seldom(lambda processes: _memory_files(processes, self._device))
        self._maps = _Seldom(lambda processes: _mapped_files(processes, self._device, time.monotonic() + MAPS_SECONDS))

    def look(self, processes: Collection[Process], shared: int) -> int:
        """Bytes of unmapped memory: all files in memory, minus the shared memory that these processes have mapped.

        Args:
            processes: The processes.
            shared: The shared memory that they have mapped, each page once, in bytes.
        """
        files = self._files.look(processes)
        found = sum(_private(processes).values()) + sum(files.values())
        # Looking at every mapping is slow, and only needed if the machine has more shared memory than is explained.
        unexplained = _shared_bytes_of_machine() - self._before - max(found, shared)
        if unexplained > SLACK_BYTES:
            mapped = self._maps.look(processes)
            found += min(unexplained, sum(size for inode, size in mapped.items() if inode not in files))
        return max(0, found - shared)


class _Seldom:
    """A slow look, which is made again when it has taken no more than its share of the time since the last one."""

    def __init__(self, measure: Callable[[Collection[Process]], dict[int, int]]) -> None:
        self._measure = measure
        self._seen: dict[int, int] = {}
        self._next = 0.0

    def look(self, processes: Collection[Process]) -> dict[int, int]:
        """Bytes by inode, as they were at the last look."""
        begun = time.monotonic()
        if begun >= self._next:
            self._seen = self._measure(processes)
            now = time.monotonic()
            self._next = now + (now - begun) / SHARE
        return self._seen


def _private(processes: Collection[Process]) -> dict[int, int]:
    """Bytes in use on each file system that is /tmp or /dev/shm inside a sandbox, by device number."""
    found: dict[int, int] = {}
    for place in PLACES:
        with suppress(OSError):
            ours = os.stat(place).st_dev
            for process in processes:
                with suppress(OSError):
                    # One descriptor for both questions: while a sandbox starts, a path leads to several places.
                    folder = os.open(f"/proc/{process.pid}/root{place}", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
                    try:
                        device = os.fstat(folder).st_dev
                        if device != ours and device not in found:
                            said = os.fstatvfs(folder)
                            found[device] = (said.f_blocks - said.f_bfree) * said.f_frsize
                    finally:
                        os.close(folder)
    return found


def _memory_files(processes: Collection[Process], device: int) -> dict[int, int]:
    """Bytes of the memory files that these processes hold open, by inode."""
    found: dict[int, int] = {}
    for process in processes:
        with suppress(OSError):
            for path in islice(open_files(process.pid), OPEN_FILES):
                with suppress(OSError):
                    said = os.stat(path)
                    if said.st_nlink == 0 and stat.S_ISREG(said.st_mode) and said.st_dev == device:
                        found[said.st_ino] = said.st_blocks * _BLOCK_BYTES
    return found


def _mapped_files(processes: Collection[Process], device: int, until: float) -> dict[int, int]:
    """Bytes of the shared memory that these processes have mapped, whether in page tables or not, by inode.

    Only root may ask for the size in use; for other users, it is the size of the mappings, which may be more.
    """
    found: dict[int, int] = {}
    for process in processes:
        seen: dict[int, int] = {}
        with suppress(OSError):
            for place, size, inode in _mappings(process.pid, device):
                if time.monotonic() > until:
                    break
                try:
                    seen[inode] = os.stat(f"/proc/{process.pid}/map_files/{place}").st_blocks * _BLOCK_BYTES
                except OSError:
                    seen[inode] = seen.get(inode, 0) + size
        found |= {inode: max(size, found.get(inode, 0)) for inode, size in seen.items()}
    return found


def _mappings(pid: int, device: int) -> Iterator[tuple[str, int, int]]:
    """The place, size in bytes and inode of each mapping of a memory file."""
    wanted = f"{os.major(device):02x}:{os.minor(device):02x}"
    with open(f"/proc/{pid}/maps", encoding="utf-8", errors="replace") as file:
        for line in file:
            place, _, _, found, inode, *_ = line.split(None, 5)
            if found == wanted:
                start, _, end = place.partition("-")
                yield place, int(end, 16) - int(start, 16), int(inode)


def _device_of_memory_files() -> int:
    file = os.memfd_create("autoresearch")
    try:
        return os.fstat(file).st_dev
    finally:
        os.close(file)


def _shared_bytes_of_machine() -> int:
    """Shared memory of all programs of this machine, in bytes; 0 if unknown."""
    with suppress(OSError, ValueError, IndexError), open("/proc/meminfo", "rb") as file:
        return int(file.read().partition(b"\nShmem:")[2].split(None, 1)[0]) * 1024
    return 0


def mapped_bytes(pid: int) -> int:
    """Bytes of shared memory that a process has mapped and used."""
    with suppress(OSError, ValueError, IndexError), open(f"/proc/{pid}/status", "rb") as file:
        return int(file.read().partition(b"\nRssShmem:")[2].split(None, 1)[0]) * 1024
    return 0
