"""The base class of a process tree: observed from outside, and ended as a whole.

A subclass for each platform starts the tree and finds its processes. Any thread may call `signal` at any time.
"""

from __future__ import annotations

import signal
import threading
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Collection
from typing import IO

from pytest_autoresearch.runners.supervisor import Process, kill_all, send, stop_all

TERM_SECONDS = 1.5
KILL_SECONDS = 10.0  # a process inside a device driver dies when the driver lets it


class ProcessTree(ABC):
    """A leader process and everything that it starts. The leader has its own session.

    Attributes:
        started: The start time, on the monotonic clock.
        stdout: A pipe with the tree's stdout; `stderr` likewise. Two, because a progress bar leaves its line open.
        exit_fd: A file descriptor that becomes readable when the leader has ended; None if the platform has none.
        gone: Set when no process is left, or the processes left cannot be ended.
        exit_status: The leader's exit status, negative for a signal; None while unknown.
        lost: Whether the supervisor was killed; then the leader's exit status may stay unknown.
    """

    stdout: IO[bytes]
    stderr: IO[bytes]
    exit_fd: int | None = None

    def __init__(self) -> None:
        self.started = 0.0
        self.gone = threading.Event()
        self.exit_status: int | None = None
        self.lost = False
        self._lock = threading.Lock()

    @property
    def seconds(self) -> float:
        """Seconds since the start."""
        return time.monotonic() - self.started

    @abstractmethod
    def exited(self) -> bool:
        """Whether the leader has ended."""

    def handle_exit_fd(self) -> bool:
        """Called when `exit_fd` is readable; false if it will not become readable again."""
        return not self.exited()

    def look(self) -> Collection[Process]:
        """The processes of the tree that run now."""
        with self._lock:
            return [] if self.gone.is_set() else [process for process in self._find().values() if process.runs]

    def signal(self, number: int) -> bool:
        """Send a signal to every process of the tree; false if none runs any more."""
        with self._lock:
            if self.gone.is_set():
                return False
            found = self._find().values()
            send(found, number)
            return any(process.runs for process in found)

    def freeze(self) -> None:
        """Stop every process of the tree until `thaw`. It takes milliseconds, whatever the processes do."""
        with self._lock:
            if not self.gone.is_set():
                self._look_afresh()
                stop_all(self._find)

    def thaw(self) -> None:
        """Let the processes go on that `freeze` stopped."""
        self.signal(signal.SIGCONT)

    def end(self, patience: float, meanwhile: Callable[[float], None]) -> None:
        """End what is left of the tree.

        Args:
            patience: Seconds between TERM and KILL; 0 for KILL at once.
            meanwhile: Called instead of `time.sleep`, with the seconds to wait.
        """
        if self.gone.is_set():
            return
        with self._lock:
            self._look_afresh()
        if patience > 0 and self.signal(signal.SIGTERM):
            self.thaw()  # a process that is stopped would not hear TERM
            until = time.monotonic() + patience
            while time.monotonic() < until and not self._over():
                meanwhile(0.02)
        until = time.monotonic() + KILL_SECONDS
        # Repeated, because the tree may grow while it is being killed.
        while not self._over() and time.monotonic() < until:
            with self._lock:
                self._look_afresh()
                kill_all(self._find)
            meanwhile(0.005)
        with self._lock:
            self._close()
            self.gone.set()

    @abstractmethod
    def _find(self) -> dict[int, Process]:
        """Every process of the tree that can be found, including zombies."""

    @abstractmethod
    def _look_afresh(self) -> None:
        """Forget what is known about other processes; called before the tree is killed."""

    @abstractmethod
    def _over(self) -> bool:
        """Whether no process of the tree is left."""

    @abstractmethod
    def _close(self) -> None:
        """Release the resources that watching needed."""
