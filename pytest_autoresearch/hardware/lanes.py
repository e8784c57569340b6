"""A lane: what one run has of the machine, one or several GPUs or a share of the cores."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass

from pytest_autoresearch.hardware.gpu import Gpu, variables

THREADS = "OMP_NUM_THREADS"


@dataclass(frozen=True, slots=True)
class Lane:
    """What one run has of the machine.

    Attributes:
        gpus: The only GPUs that the run sees; none for a run on the CPU.
        cores: The only cores that the run may use; empty for all.
    """

    gpus: tuple[Gpu, ...] = ()
    cores: tuple[int, ...] = ()

    @property
    def environment(self) -> Mapping[str, str]:
        """Variables that make the run see its GPUs alone."""
        return variables(self.gpus)

    @property
    def hardware(self) -> str:
        """The GPUs, such as `NVIDIA H200, GPU-1a2b3c4d` or `2 x NVIDIA H200, GPU-1a2b3c4d and GPU-5e6f7a8b`."""
        return f"{self.model}, {self}"

    @property
    def model(self) -> str:
        """The model and the number of the GPUs, such as `NVIDIA H200` or `2 x NVIDIA H200`."""
        times = f"{len(self.gpus)} x " if len(self.gpus) > 1 else ""
        return times + self.gpus[0].name

    @contextmanager
    def pinned(self) -> Iterator[None]:
        """Let this thread, and every process that it starts, use the lane's cores alone."""
        if not self.cores or not hasattr(os, "sched_setaffinity"):
            yield
            return
        before = os.sched_getaffinity(0)  # of the calling thread; a new process has that of the thread that starts it
        os.sched_setaffinity(0, self.cores)
        try:
            yield
        finally:
            os.sched_setaffinity(0, before)

    def __str__(self) -> str:
        if self.gpus:
            return " and ".join(gpu.short for gpu in self.gpus)
        return ", ".join(map(str, self.cores))


def usable_cores() -> tuple[int, ...]:
    """The cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return tuple(sorted(os.sched_getaffinity(0)))
    return tuple(range(os.cpu_count() or 1))


def shares(cores: Iterable[int], lanes: int) -> list[Lane]:
    """Lanes with equally many cores each; cores that are left over stay free, because lanes must not differ."""
    have = tuple(cores)
    each = len(have) // lanes
    return [Lane(cores=have[lane * each : (lane + 1) * each]) for lane in range(lanes)]
