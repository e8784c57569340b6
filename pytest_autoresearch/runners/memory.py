"""Measures the memory of a process tree from outside, in RAM and on its GPUs, and how long these are busy."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Protocol

import psutil

from pytest_autoresearch.hardware.gpu import Gpu
from pytest_autoresearch.hardware.gpu_watch import GpuWatch
from pytest_autoresearch.runners.supervisor import Process
from pytest_autoresearch.runners.unmapped_memory import UnmappedMemory, mapped_bytes

MIB = 1024 * 1024
MACHINE_SHARE = 0.9  # upper bound of every limit: above it the kernel may kill any process of the machine
WEIGHING_SHARE = 0.03  # the share of time that exact measurements may take
WEIGHING_MOST_SECONDS = 1.0  # the most time for one exact measurement
WEIGHING_SECONDS = 0.5  # the least time between two exact measurements


@dataclass(frozen=True, slots=True)
class MemoryUse:
    """Memory use of a tree, from its start to its end.

    Attributes:
        peak_mb: The peak of the memory that is limited, in MiB.
        measured: How `peak_mb` was measured: `resident`, or on the device `by process` or `by device growth`.
        resident_mb: The peak of resident memory, in MiB.
        total_mb: The peak of the sum over several GPUs, in MiB; None with one GPU or none.
        device: The UUIDs of the GPUs, separated by commas; else empty.
        others: Other processes seen on the GPUs; None if unknown.
        throttling: What lowered a GPU's clock, with the share of samples that showed it; None if unknown.
    """

    peak_mb: float = 0.0
    measured: str = "resident"
    resident_mb: float = 0.0
    total_mb: float | None = None
    device: str = ""
    others: tuple[str, ...] | None = None
    throttling: Mapping[str, float] | None = None


class Memory(Protocol):
    """Measures the memory of one tree and checks its limit.

    Attributes:
        gpu_seconds: How long the tree's GPUs were busy up to now, all together; None if unknown.
    """

    @property
    def gpu_seconds(self) -> float | None: ...

    def look(self, processes: Collection[Process]) -> float:
        """Measure the tree's memory now, in MiB. `processes` are all its running processes."""
        ...

    def over(self) -> str:
        """An error message if the last measurement exceeds the limit, else an empty string."""
        ...

    def usage(self) -> MemoryUse:
        """The memory use so far."""
        ...


class Resident:
    """Resident memory of a tree; a page shared by several of its processes counts once.

    A plain sum over processes would count a corpus in memory once for each data loader. The exact number (PSS) takes
    the kernel 12 ms a GB and process, too long for every look. Between exact measurements, `look` returns the last
    exact number. If that number plus the growth of the plain sum since then exceeds the limit, `look` measures exactly
    at once, so the limit still holds. Pages that a fork copies on write show at the next exact measurement.

    Args:
        limit_mb: In MiB.
        sandboxed: Whether the tree has its own /tmp and /dev/shm. Then files there, and memory files, count as its
            memory even if no process has mapped them.
        counted: Returns the tree's memory as the kernel counts it, or None if it does not.
    """

    def __init__(
        self, limit_mb: float, *, sandboxed: bool = False, counted: Callable[[], int | None] = lambda: None
    ) -> None:
        self._unmapped = UnmappedMemory() if sandboxed else None
        self._counted = counted
        self._limit = min(limit_mb * MIB, MACHINE_SHARE * psutil.virtual_memory().total)
        self._peak = 0
        self._exact = self._shared = self._held = 0
        self._sum_then = 0
        self._next = 0.0

    @property
    def gpu_seconds(self) -> float | None:
        return None

    def look(self, processes: Collection[Process]) -> float:
        held, begun = sum(process.resident_bytes for process in processes), time.monotonic()
        if len(processes) < 2:
            self._exact = self._sum_then = held
            self._shared = sum(mapped_bytes(process.pid) for process in processes) if self._unmapped else 0
        elif begun >= self._next or self._exact + held - self._sum_then > self._limit:
            self._exact, self._shared = _exact_bytes(processes, begun + WEIGHING_MOST_SECONDS)
            self._sum_then = held
            now = time.monotonic()
            self._next = now + max(WEIGHING_SECONDS, (now - begun) / WEIGHING_SHARE)
        self._held = self._exact + (self._unmapped.look(processes, self._shared) if self._unmapped else 0)
        self._held = max(self._held, self._counted() or 0)
        self._peak = max(self._peak, self._held)
        return self._held / MIB

    def over(self) -> str:
        return "" if self._held <= self._limit else _over("memory", self._held / MIB, self._limit / MIB)

    def usage(self) -> MemoryUse:
        return MemoryUse(peak_mb=self._peak / MIB, resident_mb=self._peak / MIB)


class OnDevices:
    """Memory of a tree on its GPUs. The limit applies to each of them; RAM is only limited to the machine's share.

    Create it before the tree is started.
    """

    def __init__(self, gpus: Sequence[Gpu], limit_mb: float, *, sandboxed: bool = False) -> None:
        self._gpus = gpus
        self._limit_mb = limit_mb
        self._most_mb = self._total_mb = 0.0  # on one GPU now, and on all of them at any time
        self._watches = [GpuWatch(gpu) for gpu in gpus]
        self._resident = Resident(float("inf"), sandboxed=sandboxed)

    @property
    def gpu_seconds(self) -> float | None:
        known = [watch.busy_seconds for watch in self._watches if watch.busy_seconds is not None]
        return sum(known) if known else None

    def look(self, processes: Collection[Process]) -> float:
        resident_mb, pids = self._resident.look(processes), [process.pid for process in processes]
        held_mb = [watch.look(pids) for watch in self._watches]
        self._most_mb = max(held_mb)
        self._total_mb = max(self._total_mb, sum(held_mb))
        return self._most_mb or resident_mb

    def over(self) -> str:
        if self._most_mb > self._limit_mb:
            where = "device memory" if len(self._gpus) == 1 else "memory on one of its GPUs"
            return _over(where, self._most_mb, self._limit_mb)
        return self._resident.over()

    def usage(self) -> MemoryUse:
        seen, resident_mb = [watch.seen() for watch in self._watches], self._resident.usage().resident_mb
        most = max(seen, key=lambda one: one.peak_mb)
        peak_mb, measured = (most.peak_mb, str(most.how)) if most.peak_mb else (resident_mb, "resident")
        return MemoryUse(
            peak_mb,
            measured,
            resident_mb,
            self._total_mb if len(self._gpus) > 1 and most.peak_mb else None,
            ",".join(gpu.uuid for gpu in self._gpus),
            _together(one.others for one in seen),
            _worst(one.throttling for one in seen),
        )


def _together(named: Iterable[tuple[str, ...] | None]) -> tuple[str, ...] | None:
    """The processes on any of the GPUs; None if they are known of none."""
    known = [names for names in named if names is not None]
    return tuple(sorted({name for names in known for name in names})) if known else None


def _worst(shares: Iterable[Mapping[str, float] | None]) -> dict[str, float] | None:
    """Each reason for throttling with its largest share; None if they are known of no GPU."""
    known = [given for given in shares if given is not None]
    worst = {name: max(given.get(name, 0.0) for given in known) for given in known for name in given}
    return worst if known else None


def _over(what: str, held_mb: float, limit_mb: float) -> str:
    return f"used {held_mb:,.0f} MiB of {what}; the limit is {limit_mb:,.0f} MiB"


def _exact_bytes(processes: Iterable[Process], until: float) -> tuple[int, int]:
    """Memory of all processes, and the shared memory in it, each page once.

    Of processes that are not reached in time, plain resident memory counts, which is more, and no shared memory.
    """
    found = [
        _proportional_bytes(one) if time.monotonic() < until else (one.resident_bytes, 0) for one in processes
    ]  # fmt: skip
    return sum(all_of_it for all_of_it, _ in found), sum(shared for _, shared in found)


def _proportional_bytes(process: Process) -> tuple[int, int]:
    """Proportional set size, and its part in shared memory: each shared page is divided by its number of users.

    Plain resident memory if unknown.
    """
    with suppress(OSError, ValueError):
        file = os.open(f"/proc/{process.pid}/smaps_rollup", os.O_RDONLY)
        try:
            said = os.read(file, 4096)
        finally:
            os.close(file)
        return _kilobytes(said, b"\nPss:") * 1024, _kilobytes(said, b"\nPss_Shmem:") * 1024
    return process.resident_bytes, 0


def _kilobytes(said: bytes, name: bytes) -> int:
    return int(said[said.index(name) + len(name) :].split(None, 1)[0])
