"""Watching one process tree to its end: its output, its limits, its memory, and the clock that it asks to be started.

All times are this process's own monotonic clock. Knows neither what the process is for nor what its output means.
"""

from __future__ import annotations

import math
import os
import selectors
import socket
import time
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass
from types import TracebackType
from typing import Self

from pytest_autoresearch.core.run import Crash, CrashClass
from pytest_autoresearch.runners.fences import Fence
from pytest_autoresearch.runners.memory import Memory, MemoryUse
from pytest_autoresearch.runners.process import TERM_SECONDS, ProcessTree

LOOK_SECONDS = 0.1  # between two looks at the tree's memory
TICK_SECONDS = 0.2  # between two reports of progress
NO_BELL_SECONDS = 0.02  # between two looks for the end of a process that rings no bell
READ_BYTES = 256 * 1024  # what a fast core still has at hand when it searches it
LAST_READS = 16
# What grows gets no time to grow on, and what has had its time none to train on.
AT_ONCE = (
    *(CrashClass.OVER_MEMORY, CrashClass.OVER_PROCESSES, CrashClass.OVER_DISK, CrashClass.OVER_BUDGET),
    CrashClass.HOPELESS,
)


class Clock:
    """The parent's end of `harness.begin()`: the answer to the first `begin` is what starts the budget.

    Args:
        rows: A descriptor of the training rows, taken over; it goes with the answer, so that no process has it before.
        before: Called when the process asks, before the clock is started: the last moment at which it has no data.

    Attributes:
        begun: When, in seconds from the start of the process; None before.
        begun_ns: The same moment on the wall clock, in nanoseconds since the epoch, to compare files with.
    """

    def __init__(self, rows: int | None = None, before: Callable[[], object] = lambda: None) -> None:
        self._rows = [] if rows is None else [rows]
        self._before = before
        self.begun: float | None = None
        self.begun_ns = 0
        self._started = 0.0
        self._asked = b""
        self._ours, self._theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
        self._ours.setblocking(False)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._ours.close()
        self._theirs.close()
        for rows in self._rows:
            os.close(rows)

    @property
    def child_fd(self) -> int:
        """The file descriptor that the process inherits."""
        return self._theirs.fileno()

    def fileno(self) -> int:
        return self._ours.fileno()

    def handed_over(self, started: float) -> None:
        """A process that was started at this moment of the monotonic clock has its end now."""
        self._started = started
        self._theirs.close()  # ours would hide that the process has closed its own

    def answer(self) -> bool:
        """Read what the process asks; false when nothing more can come of it."""
        try:
            asked = self._ours.recv(64)
            self._asked += asked
            if b"begin\n" in self._asked:
                with suppress(OSError):  # ours, and no reason to keep the run waiting
                    self._before()
                # Before the answer is sent: not one step may be free.
                self.begun, self.begun_ns = time.monotonic() - self._started, time.time_ns()
                socket.send_fds(self._ours, [b"go\n"], self._rows)
                return False
        except BlockingIOError:
            return True
        except OSError:
            return False
        return bool(asked) and len(self._asked) < 64


@dataclass(frozen=True, slots=True)
class Ended:
    """How a tree came to its end.

    Attributes:
        exit_status: Of its leader, negative for a signal; None when even KILL did not end it, or nobody saw its end.
        crash: Why it was ended, or None where it ended by itself.
        seconds: From its start until nothing of it was left.
        usage: The memory that it held.
    """

    exit_status: int | None
    crash: Crash | None
    seconds: float
    usage: MemoryUse


@dataclass(frozen=True, slots=True)
class Bounds:
    """What a tree may use.

    Attributes:
        fence: The next limit in time; asked again and again, because the clock moves it.
        memory: How its memory is measured, and its limit.
        process_limit: With more processes than this the tree is ended.
        disk: Asked with the tree's process numbers; what it wrote too much of, in a sentence, or nothing.
    """

    fence: Callable[[], Fence]
    memory: Memory
    process_limit: int
    disk: Callable[[Iterable[int]], str] = lambda pids: ""


def watch(
    tree: ProcessTree,
    bounds: Bounds,
    *,
    hear: Callable[[bytes], object],
    tick: Callable[[float, float], str | None],
    clock: Clock | None = None,
) -> Ended:
    """Watch a tree until nothing of it is left; it is ended, too, when something here fails.

    Args:
        tree: Just started.
        bounds: What it may use.
        hear: Takes the output as it comes.
        tick: Called with the tree's seconds and its memory in MiB, at most five times a second. Where it says why
            there is no point in going on, the tree is ended.
        clock: Answered when the process asks.
    """
    try:
        with selectors.DefaultSelector() as selector:
            ears = _Ears(selector, tree, hear, clock)
            crash = _until_exit(tree, bounds, ears, tick)
            tree.end(TERM_SECONDS if crash and crash.kind not in AT_ONCE else 0.0, ears.listen)
            if crash is None and tree.lost and tree.exit_status is None:
                crash = Crash(
                    CrashClass.UNWATCHED, "it ended the process that watches over it, so how it ended is not known"
                )
            ended = Ended(tree.exit_status, crash, tree.seconds, bounds.memory.usage())
            ears.listen_to_the_end()
            return ended
    finally:
        tree.end(0.0, time.sleep)
        tree.pipe.close()


def _until_exit(
    tree: ProcessTree, bounds: Bounds, ears: _Ears, tick: Callable[[float, float], str | None]
) -> Crash | None:
    """Why the tree has to be ended, or None when its leader has exited."""
    look_at = tick_at = 0.0
    while not tree.exited():
        now = tree.seconds
        limit = bounds.fence()
        if now >= limit.at:
            return limit.crash
        if now >= look_at:
            processes = tree.look()
            if len(processes) > bounds.process_limit:
                message = f"ran {len(processes):,} processes at a time; the limit is {bounds.process_limit:,}"
                return Crash(CrashClass.OVER_PROCESSES, message)
            memory_mb = bounds.memory.look(processes)
            if message := bounds.memory.over():
                return Crash(CrashClass.OVER_MEMORY, message)
            if message := bounds.disk(process.pid for process in processes):
                return Crash(CrashClass.OVER_DISK, message)
            # More often at first: a short process has a peak, too.
            look_at = now + min(LOOK_SECONDS, 0.01 + now / 4)
            if now >= tick_at:
                if why := tick(now, memory_mb):
                    return Crash(CrashClass.HOPELESS, why)
                tick_at = now + TICK_SECONDS
        ears.listen(max(0.0, min(look_at, limit.at) - tree.seconds))
    return None


class _Ears:
    """What a tree can be heard by: its output, its bell and its clock."""

    def __init__(
        self, selector: selectors.BaseSelector, tree: ProcessTree, hear: Callable[[bytes], object], clock: Clock | None
    ) -> None:
        self._selector = selector
        self._hear = hear
        self._pipe = tree.pipe.fileno()
        self._open = True
        self._longest = math.inf if tree.bell is not None else NO_BELL_SECONDS
        os.set_blocking(self._pipe, False)
        selector.register(self._pipe, selectors.EVENT_READ, self._heard)
        if tree.bell is not None:
            selector.register(tree.bell, selectors.EVENT_READ, tree.answer_bell)
        if clock:
            selector.register(clock, selectors.EVENT_READ, clock.answer)

    def listen(self, seconds: float) -> None:
        """Wait for that long at most, and take what there is."""
        for key, _ in self._selector.select(min(seconds, self._longest)):
            if not key.data():
                self._selector.unregister(key.fileobj)

    def listen_to_the_end(self) -> None:
        """Take what still stands in the pipe. It may have no end: what nobody found may hold it open and go on."""
        for _ in range(LAST_READS):
            if not self._read():
                break

    def _heard(self) -> bool:
        self._read()
        return self._open

    def _read(self) -> bytes:
        try:
            data = os.read(self._pipe, READ_BYTES) if self._open else b""
        except BlockingIOError:
            return b""
        self._open = bool(data)
        self._hear(data)
        return data
