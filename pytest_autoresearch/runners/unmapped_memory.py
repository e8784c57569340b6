"""Measures memory that a tree uses but has not mapped: memory files, and files in its private /tmp and /dev/shm."""

from __future__ import annotations

import os
import stat
from collections.abc import Collection
from contextlib import suppress

from pytest_autoresearch.runners.supervisor import Process

PLACES = ("/tmp", "/dev/shm")
_BLOCK_BYTES = 512  # the unit of st_blocks on every file system


def unmapped_bytes(processes: Collection[Process]) -> int:
    """Bytes of unmapped memory: all files in memory, minus the shared memory that these processes have mapped."""
    private = _private(processes)
    found = sum(private.values()) + sum(_memory_files(processes).values())
    return max(0, found - sum(_mapped_bytes(process.pid) for process in processes)) if found else 0


def _private(processes: Collection[Process]) -> dict[int, int]:
    """Bytes in use on each file system that is /tmp or /dev/shm inside a sandbox, by device number."""
    found: dict[int, int] = {}
    for place in PLACES:
        with suppress(OSError):
            ours = os.stat(place).st_dev
            for process in processes:
                with suppress(OSError):
                    path = f"/proc/{process.pid}/root{place}"
                    device = os.stat(path).st_dev
                    if device != ours and device not in found:
                        said = os.statvfs(path)
                        found[device] = (said.f_blocks - said.f_bfree) * said.f_frsize
    return found


def _memory_files(processes: Collection[Process]) -> dict[int, int]:
    """Bytes of the memory files that these processes hold open, by inode."""
    found: dict[int, int] = {}
    for process in processes:
        with suppress(OSError):
            folder = f"/proc/{process.pid}/fd"
            for name in os.listdir(folder):
                with suppress(OSError):
                    said = os.stat(f"{folder}/{name}")
                    if said.st_nlink == 0 and stat.S_ISREG(said.st_mode) and said.st_dev == _device_of_memory_files():
                        found[said.st_ino] = said.st_blocks * _BLOCK_BYTES
    return found


def _device_of_memory_files() -> int:
    file = os.memfd_create("autoresearch")
    try:
        return os.fstat(file).st_dev
    finally:
        os.close(file)


def _mapped_bytes(pid: int) -> int:
    """Bytes of shared memory that a process has mapped and used."""
    with suppress(OSError, ValueError, IndexError), open(f"/proc/{pid}/status", "rb") as file:
        return int(file.read().partition(b"\nRssShmem:")[2].split(None, 1)[0]) * 1024
    return 0
