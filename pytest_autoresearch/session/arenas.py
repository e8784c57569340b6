"""How the threads of a session share memory. Knows nothing of pytest."""

from __future__ import annotations

import contextlib
import ctypes

_M_ARENA_MAX = -8  # of malloc.h


def use_one_arena() -> None:
    """Let all threads of this process allocate from one arena, where the C library is glibc.

    By itself, glibc gives each of many threads an arena of its own, and returns little of their memory. Python runs one
    thread at a time, so no thread waits for another one's allocation.
    """
    with contextlib.suppress(AttributeError, OSError, TypeError):  # another C library
        ctypes.CDLL(None).mallopt(_M_ARENA_MAX, 1)
