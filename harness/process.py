"""Settings of a process that computes on the CPU: without them, a training step is slower and less even.

Knows nothing of training.
"""

import ctypes
import os
import sys

_TRIM_THRESHOLD, _MMAP_MAX = -1, -4  # options of malloc.h


def tune_process() -> None:
    """Call it before torch is imported, because OpenMP reads its settings once.

    GNU OpenMP's threads spin while they wait. With another busy process, long spins make a step many times slower;
    short spins cost nothing on an idle machine. Freed memory is kept: the system zeroes returned memory before reuse,
    which takes a third of a step.
    """
    os.environ["GOMP_SPINCOUNT"] = os.environ.get("GOMP_SPINCOUNT", "1000")
    if sys.platform == "linux":
        for option, value in ((_TRIM_THRESHOLD, -1), (_MMAP_MAX, 0)):
            ctypes.CDLL(None).mallopt(option, value)
