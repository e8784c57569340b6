"""One GPU during one run, through NVML: the memory that the run's processes hold, who else is there, and what holds the
clocks down.

May not know of CUDA, runners, git or pytest. Nothing here raises on account of a GPU: what a driver does not tell, or
a GPU that has fallen off the bus, is not measured, and the result says so.
"""

from __future__ import annotations

import math
import os
import time
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

import psutil

from pytest_autoresearch.hardware import nvml
from pytest_autoresearch.hardware.gpu import MIB, Gpu

FULL_SECONDS = 1.0  # between two looks at everything; those between ask for the run's memory alone
# How long to wait for a look. Under load a driver may take longer; the figure is then that of the look before.
PATIENCE_SECONDS = 0.02
FIRST_PATIENCE_SECONDS = 1.0

How = Literal["by process", "by device growth", "not measured"]

# A process that computes and draws stands in two of these, with the same figure.
_LISTS = ("Compute", "Graphics", "MPSCompute")
_DRAWS = "Graphics"  # a screen's own processes stand in this list alone
# Those of NVML's reasons that take speed away; an idle device and clocks that somebody chose are none of them.
_CAUSES = {
    "power cap": "SwPowerCap",
    "power brake": "HwPowerBrakeSlowdown",
    "thermal (software)": "SwThermalSlowdown",
    "thermal (hardware)": "HwThermalSlowdown",
}
_FIRST_NAMESPACE = 0xEFFFFFFC  # Linux's own number for the pid namespace that it boots with


@dataclass(frozen=True, slots=True)
class Seen:
    """What was seen of a GPU during one run.

    Attributes:
        peak_mb: The most device memory that the run held, in MiB.
        how: How that was measured. `by process`: the sum over the run's processes, with what CUDA itself takes for
            each. `by device growth`: how much fuller the device became, whoever filled it; so where the driver gives
            no figure for each process, as in a container or on WSL. Else `not measured`, and the peak is 0.
        others: Processes of somebody else that were on the device for a second or more; None where it does not tell.
        throttling: What held the clocks down, and in which share of the looks, 0 to 1; None where it does not tell.
    """

    peak_mb: float
    how: How
    others: tuple[str, ...] | None
    throttling: Mapping[str, float] | None


class GpuWatch:
    """One GPU during one run. Make it before the run starts: what the device holds then is not the run's."""

    def __init__(self, gpu: Gpu) -> None:
        self._device = _Device(gpu.uuid)
        self._patience = nvml.Patience()
        self._memory = _Memory()
        self._neighbours = _Neighbours()
        self._throttling = _Throttling()
        self._ours: tuple[str, ...] = _LISTS
        self._held_mb = 0.0
        first = self._patience.ask(lambda: self._device.answer(_LISTS, full=True), FIRST_PATIENCE_SECONDS)
        if first is not None:
            self._memory.grown(first.used_mb)
            self._neighbours.before = frozenset(first.processes or ())
        self._full_at = time.monotonic()

    def look(self, pids: Collection[int]) -> float:
        """The device memory that these processes hold now, in MiB; 0 where it cannot be measured.

        Args:
            pids: Every process of the run, as numbered here. Ten calls a second are no burden.
        """
        full = time.monotonic() >= self._full_at
        lists = _LISTS if full else self._ours
        answer = self._patience.ask(lambda: self._device.answer(lists, full), PATIENCE_SECONDS)
        if answer is not None:
            self._held_mb = self._memory.held(answer.processes, pids, answer.used_mb)
            if answer.full:
                self._full_at = time.monotonic() + FULL_SECONDS
                self._note(answer, pids)
        return self._held_mb

    def _note(self, answer: _Answer, pids: Collection[int]) -> None:
        # A list may cost a millisecond; until the next full look, those that the run stands in will do.
        ours = tuple(kind for kind, listed in answer.lists.items() if not listed.keys().isdisjoint(pids))
        self._ours = ours or _LISTS
        self._throttling.note(answer.reasons)
        processes = answer.processes
        if processes is not None:
            computing = {pid for kind, listed in answer.lists.items() if kind != _DRAWS for pid in listed}
            strangers = set(processes).difference(pids)
            self._neighbours.note(strangers, strangers - computing, self._memory.numbers_are_ours(processes))

    def seen(self) -> Seen:
        """What there is to report so far."""
        peak, how = self._memory.peak()
        return Seen(peak, how, self._neighbours.names(), self._throttling.shares())


class _Memory:
    """The run's memory: by process where the driver tells, else by how much fuller the device is."""

    def __init__(self) -> None:
        self._same_numbers = _in_first_namespace()
        self._counted = False  # a process of the run stood in a list, with a figure: the lists can be trusted
        self._peaks: dict[How, float] = {}
        self._least_mb: float | None = None

    def held(self, processes: Mapping[int, float | None] | None, pids: Collection[int], used_mb: float | None) -> float:
        """What the run holds now, in MiB; 0 where there is no telling."""
        grown = self.grown(used_mb)
        known = None if processes is None else self._by_process(processes, pids)
        if known is not None:
            return self._note("by process", known)
        if grown is not None and not self._counted:
            return self._note("by device growth", grown)
        return 0.0

    def grown(self, used_mb: float | None) -> float | None:
        """What the device holds beyond the least that it has held in this watch.

        The least, and not the first: a run that has just ended may still be giving its memory back.
        """
        if used_mb is None:
            return None
        self._least_mb = used_mb if self._least_mb is None else min(self._least_mb, used_mb)
        return used_mb - self._least_mb

    def peak(self) -> tuple[float, How]:
        """The most so far, by the method that is to be trusted."""
        if "by device growth" in self._peaks and not self._counted:
            return self._peaks["by device growth"], "by device growth"
        if "by process" in self._peaks:
            return self._peaks["by process"], "by process"
        return 0.0, "not measured"

    def numbers_are_ours(self, listed: Iterable[int]) -> bool:
        """Whether NVML's process numbers are those of this pid namespace."""
        return self._same_numbers or self._counted or any(psutil.pid_exists(pid) for pid in listed)

    def _by_process(self, processes: Mapping[int, float | None], pids: Collection[int]) -> float | None:
        """The sum over the run's processes, or None where the lists do not tell.

        In a container some drivers list the host's numbers, some nothing, and some the right numbers with a figure of 0
        for each; no process that uses CUDA holds that little.
        """
        figures = [memory for pid, memory in processes.items() if pid in pids]
        known = [memory for memory in figures if memory or (memory == 0.0 and self._same_numbers)]
        self._counted = self._counted or any(known)
        if known or self._counted:
            return math.fsum(memory for memory in known if memory)
        return None if figures or not self.numbers_are_ours(processes) else 0.0

    def _note(self, how: How, memory: float) -> float:
        self._peaks[how] = max(self._peaks.get(how, 0.0), memory)
        return memory


class _Neighbours:
    """Processes on the device that are not of the run.

    Attributes:
        before: Who was there before the run.
    """

    def __init__(self) -> None:
        self.before: frozenset[int] = frozenset()
        self._suspects: set[int] | None = None
        self._names: dict[int, str] = {}

    def note(self, strangers: set[int], drawing: set[int], numbers_are_ours: bool) -> None:
        """Who is there now, and which of them only draw. Two looks in a row make a neighbour.

        A process of the run may be younger than the list of them, and one that has ended is on the device for a while.
        """
        if not numbers_are_ours:  # the run itself is among them, under other numbers
            strangers = strangers & self.before
        for pid in strangers & (self._suspects or set()):
            name = _name(pid) if numbers_are_ours else f"process {pid} of another pid namespace"
            if name is not None:
                self._names[pid] = f"{name}, drawing" if pid in drawing else name
        self._suspects = strangers

    def names(self) -> tuple[str, ...] | None:
        return None if self._suspects is None else tuple(sorted(self._names.values()))


class _Throttling:
    """What held the clocks down, and how often."""

    def __init__(self) -> None:
        self._looks = 0
        self._counts: dict[str, int] = {}

    def note(self, causes: Iterable[str] | None) -> None:
        if causes is not None:
            self._looks += 1
            for cause in causes:
                self._counts[cause] = self._counts.get(cause, 0) + 1

    def shares(self) -> dict[str, float] | None:
        return {name: count / self._looks for name, count in self._counts.items()} if self._looks else None


@dataclass(frozen=True, slots=True)
class _Answer:
    """One look at a device.

    Attributes:
        full: Whether everything was asked.
        lists: MiB by process, for each list that answered; None is a process without a figure.
        used_mb: What the device holds, in MiB, or None.
        reasons: What holds the clocks down, or None where that was not asked or not told.
    """

    full: bool
    lists: Mapping[str, Mapping[int, float | None]] = field(default_factory=dict)
    used_mb: float | None = None
    reasons: tuple[str, ...] | None = None

    @property
    def processes(self) -> dict[int, float | None] | None:
        """MiB by process, each once; None where no list answered."""
        merged: dict[int, float | None] = {}
        for listed in self.lists.values():
            for pid, memory in listed.items():
                known = [figure for figure in (memory, merged.get(pid)) if figure is not None]
                merged[pid] = max(known, default=None)
        return merged if self.lists else None


class _Device:
    """NVML's answers about one device."""

    def __init__(self, uuid: str) -> None:
        self._uuid = uuid
        self._handle: Any = None
        self._whole: Any = None  # the GPU that a MIG instance is part of: the clocks are the whole GPU's
        self._memory_versions: tuple[int | None, ...] = ()

    def answer(self, lists: Iterable[str], full: bool) -> _Answer:
        """The lists and the memory, and the clocks where the look is a full one."""
        if self._handle is None and not self._open():
            return _Answer(full)
        listed = {kind: processes for kind in lists if (processes := self._listed(kind)) is not None}
        return _Answer(full, listed, self._used_mb(), self._reasons() if full else None)

    def _open(self) -> bool:
        handle = nvml.ask("nvmlDeviceGetHandleByUUID", self._uuid)
        if handle is None:
            return False
        self._handle = handle
        self._whole = nvml.ask("nvmlDeviceGetDeviceHandleFromMigDeviceHandle", handle) or handle
        # The second leaves what the driver keeps for itself in `used`, and is all that drivers before 510 have.
        self._memory_versions = (nvml.value("nvmlMemory_v2"), None)
        return True

    def _listed(self, kind: str) -> dict[int, float | None] | None:
        for version in ("_v3", "_v2"):  # drivers before 510 have the second alone
            processes = nvml.ask(f"nvmlDeviceGet{kind}RunningProcesses{version}", self._handle)
            if processes is not None:
                figures = {one.pid: one.usedGpuMemory for one in processes}
                return {pid: None if figure is None else figure / MIB for pid, figure in figures.items()}
        return None

    def _used_mb(self) -> float | None:
        for version in self._memory_versions:
            memory = nvml.ask("nvmlDeviceGetMemoryInfo", self._handle, version)
            if memory is not None:
                self._memory_versions = (version,)  # to change over in mid-run would look like growth
                return float(memory.used) / MIB
        return None

    def _reasons(self) -> tuple[str, ...] | None:
        bits = nvml.ask("nvmlDeviceGetCurrentClocksEventReasons", self._whole)
        if bits is None:  # the older name, which is all that drivers before 535 know
            bits = nvml.ask("nvmlDeviceGetCurrentClocksThrottleReasons", self._whole)
        if bits is None:
            return None
        causes = tuple(name for name, bit in _CAUSES.items() if bits & nvml.value(f"nvmlClocksEventReason{bit}"))
        slowed = bits & nvml.value("nvmlClocksEventReasonHwSlowdown")  # set beside its cause, where that is known
        return ("hardware slowdown",) if slowed and not causes else causes


def _name(pid: int) -> str | None:
    """A process for people; None where it has ended."""
    try:
        process = psutil.Process(pid)
        return None if process.status() == psutil.STATUS_ZOMBIE else f"{process.name()} (process {pid})"
    except psutil.AccessDenied:
        return f"process {pid}"
    except psutil.NoSuchProcess:
        try:
            os.kill(pid, 0)
        except PermissionError:  # another user's, where /proc shows nobody else's
            return f"process {pid}"
        except ProcessLookupError:
            pass
        return None


def _in_first_namespace() -> bool:
    """Whether process numbers here are the kernel's own, and so the driver's."""
    try:
        return os.stat("/proc/self/ns/pid").st_ino == _FIRST_NAMESPACE
    except OSError:
        return False
