"""Which pages of a file are in the kernel's page cache, seen as an attacker sees it."""

from __future__ import annotations

import ctypes
import mmap
import os
from pathlib import Path

import pytest

PAGES = 64


def write_cold(path: Path) -> None:
    """A file on the disk with no page in memory; skips where the file system keeps all of them there."""
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(os.urandom(PAGES * mmap.PAGESIZE))
    with path.open("rb") as file:
        os.fsync(file.fileno())
    drop(path)
    if resident(path) != {False}:
        pytest.skip("this file system keeps every page in memory")


def drop(path: Path, page: int = 0, count: int = PAGES) -> None:
    """Take pages of a file out of memory, which a reader may do."""
    with path.open("rb") as file:
        os.posix_fadvise(file.fileno(), page * mmap.PAGESIZE, count * mmap.PAGESIZE, os.POSIX_FADV_DONTNEED)


def touch(path: Path, page: int) -> None:
    """Read one page of a file, and no other."""
    with path.open("rb", buffering=0) as file:
        os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_RANDOM)
        os.pread(file.fileno(), 1, page * mmap.PAGESIZE)


def states(path: Path) -> list[bool]:
    """Whether each page of a file is in memory."""
    kernel = ctypes.CDLL(None)
    kernel.mmap.restype = ctypes.c_void_p
    kernel.mmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int, ctypes.c_int, ctypes.c_int, ctypes.c_long]
    size = path.stat().st_size
    vector = (ctypes.c_ubyte * (size // mmap.PAGESIZE))()
    with path.open("rb") as file:
        address = kernel.mmap(None, size, 1, 1, file.fileno(), 0)
        kernel.mincore(ctypes.c_void_p(address), ctypes.c_size_t(size), vector)
        kernel.munmap(ctypes.c_void_p(address), ctypes.c_size_t(size))
    return [bool(byte & 1) for byte in vector]


def resident(path: Path) -> set[bool]:
    """The states that occur."""
    return set(states(path))
