"""Watches one GPU during one run, through NVML: the run's memory, how busy it is, other processes, and throttling.

Knows nothing of CUDA, runners, git or pytest. GPU problems raise no exception: numbers that the driver does not report
are missing in the result, for example after a GPU has fallen off the bus.
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

FULL_SECONDS = 1.0  # between two full looks; the looks in between only ask for the run's memory
# How long to wait for an answer. A driver under load may take longer; then the previous figure is used.
PATIENCE_SECONDS = 0.02
FIRST_PATIENCE_SECONDS = 1.0

How = Literal["by process", "by device growth", "not measured"]

# A process that computes and draws is in two of these lists, with the same figure.
_LISTS = ("Compute", "Graphics", "MPSCompute")
_DRAWS = "Graphics"  # a process that only draws on the screen is in this list alone
# NVML's reasons that mean throttling. An idle device, and clocks that the user set, are not throttling.
_CAUSES = {
    "power cap": "SwPowerCap",
    "power brake": "HwPowerBrakeSlowdown",
    "thermal (software)": "SwThermalSlowdown",
    "thermal (hardware)": "HwThermalSlowdown",
}
_FIRST_NAMESPACE = 0xEFFFFFFC  # the inode of Linux's initial pid namespace


@dataclass(frozen=True, slots=True)
class Seen:
    """The measurements of a GPU during one run.

    Attributes:
        peak_mb: The run's peak device memory, in MiB.
        how: How it was measured. `by process`: the sum over the run's processes, including CUDA's own memory in each.
            `by device growth`: the growth of all memory in use on the device, whoever uses it; used if the driver
            reports no figure for each process, as in a container or on WSL. `not measured`: the peak is 0.
        others: Other processes that were on the device for a second or more; None if the driver does not report them.
        throttling: Reasons for throttling, each with the share of looks that showed it, 0 to 1; None if the driver
            does not report them.
    """

    peak_mb: float
    how: How
    others: tuple[str, ...] | None
    throttling: Mapping[str, float] | None


class GpuWatch:
    """Watches one GPU during one run. Create it before the run starts: memory in use then is not the run's.

    Attributes:
        busy_seconds: How long the GPU was busy with the run up to now; None if the driver does not report that, as for
            a MIG instance. Times with other processes on the GPU do not count, because it is unknown whose they are.
    """

    def __init__(self, gpu: Gpu) -> None:
        self._device = _Device(gpu.uuid)
        self._caller = nvml.TimedCaller()
        self._memory = _Memory()
        self._others = _OtherProcesses()
        self._throttling = _Throttling()
        self._ours: tuple[str, ...] = _LISTS
        self._held_mb = 0.0
        self.busy_seconds: float | None = None
        self._looked_at = time.monotonic()
        first = self._caller.call(lambda: self._device.answer(_LISTS, full=True), FIRST_PATIENCE_SECONDS)
        if first is not None:
            self._memory.grown(first.used_mb)
            self._others.before = frozenset(first.processes or ())
        self._full_at = time.monotonic()

    def look(self, pids: Collection[int]) -> float:
        """The device memory that these processes hold now, in MiB; 0 if it cannot be measured.

        Cheap enough for ten calls a second.

        Args:
            pids: Every process of the run, by its number in this pid namespace.
        """
        now = time.monotonic()
        full = now >= self._full_at
        lists = _LISTS if full else self._ours
        answer = self._caller.call(lambda: self._device.answer(lists, full), PATIENCE_SECONDS)
        if answer is not None:
            self._held_mb = self._memory.held(answer.processes, pids, answer.used_mb)
            if answer.busy is not None:
                since = 0.0 if self._others.now else now - self._looked_at
                self.busy_seconds = (self.busy_seconds or 0.0) + answer.busy * since
            self._looked_at = now
            if answer.full:
                self._full_at = time.monotonic() + FULL_SECONDS
                self._note(answer, pids)
        return self._held_mb

    def _note(self, answer: _Answer, pids: Collection[int]) -> None:
        # A list may take a millisecond, so until the next full look only lists with the run's processes are read.
        ours = tuple(kind for kind, listed in answer.lists.items() if not listed.keys().isdisjoint(pids))
        self._ours = ours or _LISTS
        self._throttling.note(answer.reasons)
        processes = answer.processes
        if processes is not None:
            computing = {pid for kind, listed in answer.lists.items() if kind != _DRAWS for pid in listed}
            strangers = set(processes).difference(pids)
            self._others.note(strangers, strangers - computing, self._memory.numbers_are_ours(processes))

    def seen(self) -> Seen:
        """The measurements so far."""
        peak, how = self._memory.peak()
        return Seen(peak, how, self._others.names(), self._throttling.shares())


def users(gpu: Gpu) -> tuple[str, ...]:
    """The processes that compute on the GPU now, by name; empty if the driver reports none or does not answer."""
    answer = nvml.TimedCaller().call(lambda: _Device(gpu.uuid).answer(_LISTS, full=False), FIRST_PATIENCE_SECONDS)
    if answer is None:
        return ()
    drawing = answer.lists.get(_DRAWS, {}).keys()  # a browser or a desktop is in both lists
    pids = {pid for listed in answer.lists.values() for pid in listed if pid not in drawing}
    here = _in_first_namespace()
    return tuple(sorted(_name(pid) or f"process {pid}" if here else f"process {pid}" for pid in pids))


class _Memory:
    """The run's memory: by process if the driver reports that, else by the growth of memory in use on the device."""

    def __init__(self) -> None:
        self._same_numbers = _in_first_namespace()
        self._counted = False  # a process of the run was in a list with a figure, so the lists can be trusted
        self._peaks: dict[How, float] = {}
        self._least_mb: float | None = None

    def held(self, processes: Mapping[int, float | None] | None, pids: Collection[int], used_mb: float | None) -> float:
        """The run's memory now, in MiB; 0 if unknown."""
        grown = self.grown(used_mb)
        known = None if processes is None else self._by_process(processes, pids)
        if known is not None:
            return self._note("by process", known)
        if grown is not None and not self._counted:
            return self._note("by device growth", grown)
        return 0.0

    def grown(self, used_mb: float | None) -> float | None:
        """The growth of memory in use, in MiB: the difference to the least value seen so far.

        Not to the first value, because the previous run may still be freeing its memory then.
        """
        if used_mb is None:
            return None
        self._least_mb = used_mb if self._least_mb is None else min(self._least_mb, used_mb)
        return used_mb - self._least_mb

    def peak(self) -> tuple[float, How]:
        """The peak so far, by the most reliable method."""
        if "by device growth" in self._peaks and not self._counted:
            return self._peaks["by device growth"], "by device growth"
        if "by process" in self._peaks:
            return self._peaks["by process"], "by process"
        return 0.0, "not measured"

    def numbers_are_ours(self, listed: Iterable[int]) -> bool:
        """Whether NVML's process numbers are valid in this pid namespace."""
        return self._same_numbers or self._counted or any(psutil.pid_exists(pid) for pid in listed)

    def _by_process(self, processes: Mapping[int, float | None], pids: Collection[int]) -> float | None:
        """The sum over the run's processes in MiB, or None if the lists cannot be trusted.

        In a container, some drivers list the host's process numbers, some list nothing, and some list the right numbers
        with a figure of 0. No process that uses CUDA uses 0.
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


class _OtherProcesses:
    """Processes on the device that do not belong to the run.

    Attributes:
        before: The processes that were there before the run.
        now: Whether the last full look saw some.
    """

    def __init__(self) -> None:
        self.before: frozenset[int] = frozenset()
        self.now = False
        self._suspects: set[int] | None = None
        self._names: dict[int, str] = {}

    def note(self, strangers: set[int], drawing: set[int], numbers_are_ours: bool) -> None:
        """Note the other processes now, and which of them only draw. A process counts if two looks in a row see it.

        One look is not enough: the process may be a new child of the run, or one that has just ended.
        """
        if not numbers_are_ours:  # then `strangers` contains the run itself, under other numbers
            strangers = strangers & self.before
        self.now = bool(strangers)
        for pid in strangers & (self._suspects or set()):
            name = _name(pid) if numbers_are_ours else f"process {pid} of another pid namespace"
            if name is not None:
                self._names[pid] = f"{name}, drawing" if pid in drawing else name
        self._suspects = strangers

    def names(self) -> tuple[str, ...] | None:
        return None if self._suspects is None else tuple(sorted(self._names.values()))


class _Throttling:
    """Counts the reasons for throttling."""

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
        full: Whether it was a full look.
        lists: MiB by process, for each list that answered; None for a process without a figure.
        used_mb: Memory in use on the device, in MiB, or None.
        reasons: Reasons for throttling; None if not asked or not reported.
        busy: The share of the last moments, at most a second, in which a kernel was at work, 0 to 1; None if not
            reported.
    """

    full: bool
    lists: Mapping[str, Mapping[int, float | None]] = field(default_factory=dict)
    used_mb: float | None = None
    reasons: tuple[str, ...] | None = None
    busy: float | None = None

    @property
    def processes(self) -> dict[int, float | None] | None:
        """MiB by process, merged from all lists; None if no list answered."""
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
        self._whole: Any = None  # the physical GPU of a MIG instance, which has the clocks
        self._memory_versions: tuple[int | None, ...] = ()

    def answer(self, lists: Iterable[str], full: bool) -> _Answer:
        """The lists and the memory; in a full look also the reasons for throttling."""
        if self._handle is None and not self._open():
            return _Answer(full)
        listed = {kind: processes for kind in lists if (processes := self._listed(kind)) is not None}
        return _Answer(full, listed, self._used_mb(), self._reasons() if full else None, self._busy())

    def _open(self) -> bool:
        handle = nvml.ask("nvmlDeviceGetHandleByUUID", self._uuid)
        if handle is None:
            return False
        self._handle = handle
        self._whole = nvml.ask("nvmlDeviceGetDeviceHandleFromMigDeviceHandle", handle) or handle
        # Version 1 (None) counts the driver's own memory as used; drivers before 510 have only that version.
        self._memory_versions = (nvml.value("nvmlMemory_v2"), None)
        return True

    def _listed(self, kind: str) -> dict[int, float | None] | None:
        for version in ("_v3", "_v2"):  # drivers before 510 have only _v2
            processes = nvml.ask(f"nvmlDeviceGet{kind}RunningProcesses{version}", self._handle)
            if processes is not None:
                figures = {one.pid: one.usedGpuMemory for one in processes}
                return {pid: None if figure is None else figure / MIB for pid, figure in figures.items()}
        return None

    def _used_mb(self) -> float | None:
        for version in self._memory_versions:
            memory = nvml.ask("nvmlDeviceGetMemoryInfo", self._handle, version)
            if memory is not None:
                self._memory_versions = (version,)  # changing the version during a run would look like growth
                return float(memory.used) / MIB
        return None

    def _busy(self) -> float | None:
        rates = nvml.ask("nvmlDeviceGetUtilizationRates", self._handle)
        return None if rates is None else float(rates.gpu) / 100

    def _reasons(self) -> tuple[str, ...] | None:
        bits = nvml.ask("nvmlDeviceGetCurrentClocksEventReasons", self._whole)
        if bits is None:  # drivers before 535 know only this older name
            bits = nvml.ask("nvmlDeviceGetCurrentClocksThrottleReasons", self._whole)
        if bits is None:
            return None
        causes = tuple(name for name, bit in _CAUSES.items() if bits & nvml.value(f"nvmlClocksEventReason{bit}"))
        slowed = bits & nvml.value("nvmlClocksEventReasonHwSlowdown")  # set together with a known cause
        return ("hardware slowdown",) if slowed and not causes else causes


def _name(pid: int) -> str | None:
    """A process's name and number, for messages; None if it has ended."""
    try:
        process = psutil.Process(pid)
        return None if process.status() == psutil.STATUS_ZOMBIE else f"{process.name()} (process {pid})"
    except psutil.AccessDenied:
        return f"process {pid}"
    except psutil.NoSuchProcess:
        try:
            os.kill(pid, 0)
        except PermissionError:  # another user's process, and /proc hides other users
            return f"process {pid}"
        except ProcessLookupError:
            pass
        return None


def _in_first_namespace() -> bool:
    """Whether this is the initial pid namespace, whose process numbers the driver uses."""
    try:
        return os.stat("/proc/self/ns/pid").st_ino == _FIRST_NAMESPACE
    except OSError:
        return False
