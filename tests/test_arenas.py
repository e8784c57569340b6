"""The memory of a session's threads."""

from __future__ import annotations

import ctypes
import subprocess
import sys

import pytest

# Prints how many arenas there are after several threads have used memory at the same time.
COUNT = """
import ctypes, sys, threading
from pytest_autoresearch.session.arenas import use_one_arena

if sys.argv[1] == "one":
    use_one_arena()
together = threading.Barrier(5)

def work():
    kept = [bytes(100_000) for _ in range(5)]
    together.wait()

threads = [threading.Thread(target=work) for _ in range(4)]
for thread in threads:
    thread.start()
together.wait()
for thread in threads:
    thread.join()
libc = ctypes.CDLL(None)
libc.malloc_info(0, ctypes.c_void_p.in_dll(libc, "stdout"))
libc.fflush(None)
"""


@pytest.mark.skipif(not hasattr(ctypes.CDLL(None), "malloc_info"), reason="another C library than glibc")
def test_all_threads_of_a_session_share_one_arena() -> None:
    def arenas(how: str) -> int:
        done = subprocess.run([sys.executable, "-c", COUNT, how], capture_output=True, text=True, check=True)
        return done.stdout.count("<heap nr=")

    assert arenas("usual") > 1
    assert arenas("one") == 1
