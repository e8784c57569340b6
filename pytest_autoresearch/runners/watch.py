"""Watches one process tree to its end: reads its output, enforces its limits, and starts its clock.

The time limits have a thread of their own, which stops the tree at a limit. So the clock never waits for a look at the
tree: a look may take long, because the tree decides how much there is to look at.

All times are on this process's monotonic clock. Does not know what the tree is for or what its output means.
"""

from __future__ import annotations

import math
import os
import selectors
import threading
import time
from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass
from types import TracebackType
from typing import Self

from pytest_autoresearch.core.run import Crash, CrashClass
from pytest_autoresearch.runners.clock import Clock
from pytest_autoresearch.runners.memory import Memory, MemoryUse
from pytest_autoresearch.runners.open_files import OPEN_FILES, count_open_files
from pytest_autoresearch.runners.process import TERM_SECONDS, ProcessTree
from pytest_autoresearch.runners.supervisor import Process
from pytest_autoresearch.runners.time_limits import TimeLimit

LOOK_SECONDS = 0.1  # between two looks at the tree's memory
CLOCK_SECONDS = 0.05  # the longest time until a new time limit is known
TICK_SECONDS = 0.2  # between two reports of progress
POLL_SECONDS = 0.02  # between two checks for the leader's exit, on platforms without `exit_fd`
READ_BYTES = 256 * 1024  # still in a core's cache when it is searched
LINE_BYTES = 64 * 1024  # a longer line is handed on before its end
LAST_READS = 16
# Reasons to kill without TERM: the process must not use more memory, or train on after its budget.
AT_ONCE = (
    *(CrashClass.OVER_MEMORY, CrashClass.OVER_PROCESSES, CrashClass.OVER_DISK, CrashClass.OVER_BUDGET),
    CrashClass.HOPELESS,
)


@dataclass(frozen=True, slots=True)
class Ended:
    """How a tree ended.

    Attributes:
        exit_status: The leader's exit status, negative for a signal; None if KILL did not end it, or it is unknown.
        crash: Why the tree was killed; None if it ended by itself.
        seconds: From its start until no process was left.
        usage: Its memory use.
    """

    exit_status: int | None
    crash: Crash | None
    seconds: float
    usage: MemoryUse


@dataclass(frozen=True, slots=True)
class Bounds:
    """The limits of a tree.

    Attributes:
        time_limit: Returns the next time limit; called repeatedly, because the limit changes when the clock starts.
        memory: Measures the tree's memory and checks its limit.
        process_limit: The tree is killed if it has more processes than this.
        disk: Called with the tree's process numbers; returns an error message if it wrote too much, else "".
        startup: Called with the tree's processes; returns an error message if they did too much before the clock.
        open_files: The tree is killed if it has more open files than this. Each look reads the list of all of them.
    """

    time_limit: Callable[[], TimeLimit]
    memory: Memory
    process_limit: int
    disk: Callable[[Iterable[int]], str] = lambda pids: ""
    startup: Callable[[Iterable[Process]], str] = lambda processes: ""
    open_files: int = OPEN_FILES


def watch(
    tree: ProcessTree,
    bounds: Bounds,
    *,
    feed: Callable[[bytes], object],
    tick: Callable[[float, float], str | None],
    clock: Clock | None = None,
) -> Ended:
    """Watch a tree until no process is left. If this function raises, the tree is killed too.

    Args:
        tree: A tree that was just started.
        bounds: Its limits.
        feed: Receives the output of both pipes, in whole lines.
        tick: Called with the tree's seconds and its memory in MiB, at most five times a second. If it returns a
            reason, the tree is killed.
        clock: Started when the process asks.
    """
    try:
        with _Timekeeper(tree, bounds.time_limit) as timekeeper, selectors.DefaultSelector() as selector:
            events = _Events(selector, tree, feed, clock)
            selector.register(timekeeper, selectors.EVENT_READ, timekeeper.heard)
            crash = _until_exit(tree, bounds, events, tick, timekeeper)
            timekeeper.stop()
            tree.end(TERM_SECONDS if crash and crash.kind not in AT_ONCE else 0.0, events.wait)
            if crash is None and tree.lost and tree.exit_status is None:
                crash = Crash(CrashClass.UNWATCHED, "killed its own supervisor, so its exit status is unknown")
            ended = Ended(tree.exit_status, crash, tree.seconds, bounds.memory.usage())
            events.read_rest()
            return ended
    finally:
        tree.end(0.0, time.sleep)
        tree.stdout.close()
        tree.stderr.close()


def _until_exit(
    tree: ProcessTree,
    bounds: Bounds,
    events: _Events,
    tick: Callable[[float, float], str | None],
    timekeeper: _Timekeeper,
) -> Crash | None:
    """Why the tree has to be killed; None if its leader has exited in time."""
    look_at = tick_at = 0.0
    while not tree.exited():
        if crash := timekeeper.reached():
            return crash
        now = tree.seconds
        if now >= look_at:
            processes = tree.look()
            if message := _too_many(processes, bounds):
                return Crash(CrashClass.OVER_PROCESSES, message)
            if message := bounds.startup(processes):
                return Crash(CrashClass.TIMEOUT, message)
            memory_mb = bounds.memory.look(processes)
            if message := bounds.memory.over():
                return Crash(CrashClass.OVER_MEMORY, message)
            if message := bounds.disk(process.pid for process in processes):
                return Crash(CrashClass.OVER_DISK, message)
            # More often at first, to see the peak of a short process.
            look_at = now + min(LOOK_SECONDS, 0.01 + now / 4)
            if now >= tick_at:
                if why := tick(now, memory_mb):
                    return Crash(CrashClass.HOPELESS, why)
                tick_at = now + TICK_SECONDS
        events.wait(max(0.0, look_at - tree.seconds))
    timekeeper.stop()
    return timekeeper.reached()  # a leader may end when the tree is stopped, and one that ended may have been hidden


def _too_many(processes: Collection[Process], bounds: Bounds) -> str:
    """An error message if there is too much to look at, else an empty string."""
    if len(processes) > bounds.process_limit:
        return f"ran {len(processes):,} processes at a time; the limit is {bounds.process_limit:,}"
    if count_open_files(processes, bounds.open_files) > bounds.open_files:
        return f"had more than {bounds.open_files:,} files open at a time"
    return ""


class _Timekeeper:
    """The clock of a tree, on a thread of its own. At a time limit it stops the tree, before anything is looked at.

    Args:
        tree: The tree.
        time_limit: See `Bounds`.
    """

    def __init__(self, tree: ProcessTree, time_limit: Callable[[], TimeLimit]) -> None:
        self._tree = tree
        self._time_limit = time_limit
        self._crash: Crash | None = None
        self._error: BaseException | None = None
        self._over = threading.Event()
        self._reading, self._writing = os.pipe()
        self._thread = threading.Thread(target=self._run, daemon=True, name="timekeeper")

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()
        os.close(self._reading)
        os.close(self._writing)

    def stop(self) -> None:
        """Stop no process any more: the tree is about to be ended."""
        self._over.set()
        self._thread.join()

    def fileno(self) -> int:
        """A descriptor that becomes readable when a limit is reached."""
        return self._reading

    def heard(self) -> bool:
        """Called when the descriptor is readable; false, because that happens once."""
        return False

    def reached(self) -> Crash | None:
        """The crash of the limit that the tree has reached and at which it was stopped; None before."""
        if self._error is not None:
            raise self._error
        return self._crash

    def _run(self) -> None:
        try:
            self._crash = self._keep()
        except BaseException as error:
            self._error = error
        os.write(self._writing, b".")

    def _keep(self) -> Crash | None:
        while not self._over.is_set():
            limit = self._time_limit()
            left = limit.at - self._tree.seconds
            if left > 0:
                self._over.wait(min(left, CLOCK_SECONDS))
                continue
            self._tree.freeze()
            if limit.fence is None or not limit.fence.passes():
                return limit.crash
            self._tree.thaw()
        return None


class _Events:
    """Waits for a tree's output, its exit and its clock."""

    def __init__(
        self, selector: selectors.BaseSelector, tree: ProcessTree, feed: Callable[[bytes], object], clock: Clock | None
    ) -> None:
        self._selector = selector
        self._feed = feed
        self._streams = [_Stream(pipe.fileno(), self._hand_on) for pipe in (tree.stdout, tree.stderr)]
        self._unended: _Stream | None = None
        self._longest = math.inf if tree.exit_fd is not None else POLL_SECONDS
        for stream in self._streams:
            os.set_blocking(stream.descriptor, False)
            selector.register(stream.descriptor, selectors.EVENT_READ, stream.read_on)
        if tree.exit_fd is not None:
            selector.register(tree.exit_fd, selectors.EVENT_READ, tree.handle_exit_fd)
        for end, answer in clock.requests if clock else ():
            selector.register(end, selectors.EVENT_READ, answer)

    def wait(self, seconds: float) -> None:
        """Wait at most this long, and handle what arrives."""
        for key, _ in self._selector.select(min(seconds, self._longest)):
            if not key.data():
                self._selector.unregister(key.fileobj)

    def read_rest(self) -> None:
        """Read what is left in the pipes, in bounded reads: a process that was not found may still write to them."""
        for stream in self._streams:
            for _ in range(LAST_READS):
                if not stream.read():
                    break
            stream.finish()

    def _hand_on(self, stream: _Stream, data: bytes) -> None:
        if self._unended not in (None, stream):
            data = b"\n" + data
        self._unended = None if data.endswith((b"\n", b"\r")) else stream
        self._feed(data)


@dataclass(slots=True, eq=False)
class _Stream:
    """One pipe of a tree. It hands on whole lines, so that a line of one pipe never begins inside a line of the other.

    Attributes:
        descriptor: The pipe.
        hand_on: Receives this object and the lines.
        is_open: Whether more can come.
        begun: A line without its end.
    """

    descriptor: int
    hand_on: Callable[[_Stream, bytes], object]
    is_open: bool = True
    begun: bytes = b""

    def read_on(self) -> bool:
        """Read once; false if no more can come."""
        self.read()
        return self.is_open

    def read(self) -> bytes:
        """Read once, and hand on the lines that are complete. Returns the bytes that were read."""
        try:
            data = os.read(self.descriptor, READ_BYTES) if self.is_open else b""
        except BlockingIOError:
            return b""
        self.is_open = bool(data)
        text = self.begun + data
        end = max(text.rfind(b"\n"), text.rfind(b"\r")) + 1
        end = len(text) if len(text) - end > LINE_BYTES else end
        self.begun = text[end:]
        if end:
            self.hand_on(self, text[:end])
        return data

    def finish(self) -> None:
        """Hand on a line that never ended."""
        if self.begun:
            self.hand_on(self, self.begun + b"\n")
            self.begun = b""
