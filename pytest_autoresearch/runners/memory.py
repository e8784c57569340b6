"""Memory of the processes of a tree, as seen from outside: on the machine, and on its GPU."""

from __future__ import annotations

import os
import time
from collections.abc import Collection, Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Protocol

import psutil

from pytest_autoresearch.hardware.gpu import Gpu
from pytest_autoresearch.hardware.gpu_watch import GpuWatch
from pytest_autoresearch.runners.supervisor import Process
from pytest_autoresearch.runners.unheld import unheld_bytes

MIB = 1024 * 1024
MACHINE_SHARE = 0.9  # of the machine's memory at most: with more, the kernel would choose what to end
WEIGHING_SHARE = 0.05  # of the time at most goes into exact measurements
WEIGHING_SECONDS = 0.5  # at least between two of them


@dataclass(frozen=True, slots=True)
class MemoryUse:
    """What a tree held, from its start to its end.

    Attributes:
        peak_mb: The most of what its limit is held against, in MiB.
        measured: What that is: `resident` memory, or memory of the device `by process` or `by device growth`.
        resident_mb: The most resident memory, in MiB.
        device: The GPU's UUID, else empty.
        others: Other processes seen on the GPU; None where there is no telling.
        throttling: What held its clock down, and in which share of the looks; None where there is no telling.
    """

    peak_mb: float = 0.0
    measured: str = "resident"
    resident_mb: float = 0.0
    device: str = ""
    others: tuple[str, ...] | None = None
    throttling: Mapping[str, float] | None = None


class Memory(Protocol):
    """How the memory of one tree is measured, and its limit."""

    def look(self, processes: Collection[Process]) -> float:
        """What these processes, all that run of the tree, hold now, in MiB."""
        ...

    def over(self) -> str:
        """Which limit the last look overstepped, in a sentence; empty where none."""
        ...

    def usage(self) -> MemoryUse:
        """What was seen so far."""
        ...


class Resident:
    """Resident memory of a tree, a page that several of its processes hold counted once.

    A sum over processes would count a corpus in memory as often as there are data loaders. To tell what is shared (PSS)
    the kernel walks over all pages, 12 ms a GB of each process: too long for every look. A look in between returns the
    last exact number, but the limit is never overstepped unseen: when it and the sum's growth since then are above the
    limit, the tree is measured at once. What a fork copies as it writes to it shows with the next exact number.

    Args:
        limit_mb: In MiB.
        sandboxed: Whether the tree has a /tmp and a /dev/shm of its own. What it keeps there, or in memory files, and
            has not mapped, is its memory, too.
    """

    def __init__(self, limit_mb: float, *, sandboxed: bool = False) -> None:
        self._sandboxed = sandboxed
        self._limit = min(limit_mb * MIB, MACHINE_SHARE * psutil.virtual_memory().total)
        self._peak = 0
        self._exact = self._held = 0
        self._sum_then = 0
        self._next = 0.0

    def look(self, processes: Collection[Process]) -> float:
        held, begun = sum(process.resident_bytes for process in processes), time.monotonic()
        if len(processes) < 2:
            self._exact = self._sum_then = held
        elif begun >= self._next or self._exact + held - self._sum_then > self._limit:
            self._exact, self._sum_then = sum(map(_proportional_bytes, processes)), held
            now = time.monotonic()
            self._next = now + max(WEIGHING_SECONDS, (now - begun) / WEIGHING_SHARE)
        self._held = self._exact + (unheld_bytes(processes) if self._sandboxed else 0)
        self._peak = max(self._peak, self._held)
        return self._held / MIB

    def over(self) -> str:
        return "" if self._held <= self._limit else _over("memory", self._held / MIB, self._limit / MIB)

    def usage(self) -> MemoryUse:
        return MemoryUse(peak_mb=self._peak / MIB, resident_mb=self._peak / MIB)


class OnDevice:
    """Memory of a tree on its GPU, which the limit is for. Its resident memory is only kept from filling the machine.

    Make it before the tree is started.
    """

    def __init__(self, gpu: Gpu, limit_mb: float, *, sandboxed: bool = False) -> None:
        self._gpu = gpu
        self._limit_mb = limit_mb
        self._held_mb = 0.0
        self._watch = GpuWatch(gpu)
        self._resident = Resident(float("inf"), sandboxed=sandboxed)

    def look(self, processes: Collection[Process]) -> float:
        resident_mb = self._resident.look(processes)
        self._held_mb = self._watch.look([process.pid for process in processes])
        return self._held_mb or resident_mb

    def over(self) -> str:
        if self._held_mb > self._limit_mb:
            return _over("device memory", self._held_mb, self._limit_mb)
        return self._resident.over()

    def usage(self) -> MemoryUse:
        seen, resident_mb = self._watch.seen(), self._resident.usage().resident_mb
        peak_mb, measured = (seen.peak_mb, str(seen.how)) if seen.peak_mb else (resident_mb, "resident")
        return MemoryUse(peak_mb, measured, resident_mb, self._gpu.uuid, seen.others, seen.throttling)


def _over(what: str, held_mb: float, limit_mb: float) -> str:
    return f"used {held_mb:,.0f} MiB of {what}; the limit is {limit_mb:,.0f} MiB"


def _proportional_bytes(process: Process) -> int:
    """Resident memory with each shared page divided by the number of its holders; undivided where nothing tells."""
    with suppress(OSError, ValueError):
        file = os.open(f"/proc/{process.pid}/smaps_rollup", os.O_RDONLY)
        try:
            said = os.read(file, 4096)
        finally:
            os.close(file)
        return int(said[said.index(b"\nPss:") + 5 :].split(None, 1)[0]) * 1024
    return process.resident_bytes
