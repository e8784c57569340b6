"""One process tree: seen from outside, and ended as a whole. How it is started and found is its platform's affair.

`signal` may be called from another thread at any time.
"""

from __future__ import annotations

import signal
import threading
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Collection
from typing import IO

from pytest_autoresearch.runners.supervisor import Process, fell, send

TERM_SECONDS = 1.5
KILL_SECONDS = 10.0  # a process inside a device driver dies when the driver lets it


class ProcessTree(ABC):
    """A process, the leader, and everything that it starts. The leader has a session of its own.

    Attributes:
        started: When, on the monotonic clock.
        pipe: What the tree says on stdout and stderr, as one stream.
        bell: A file descriptor that can be read when the leader has ended, or None where there is no such thing.
        gone: Set when nothing of it is left, or what is left cannot be ended.
        exit_status: The leader's, negative for a signal; None as long as it is not known.
        lost: Whether the tree has ended what watched over it, so that how the leader ended may never be known.
    """

    pipe: IO[bytes]
    bell: int | None = None

    def __init__(self) -> None:
        self.started = 0.0
        self.gone = threading.Event()
        self.exit_status: int | None = None
        self.lost = False
        self._lock = threading.Lock()

    @property
    def seconds(self) -> float:
        """Since it was started."""
        return time.monotonic() - self.started

    @abstractmethod
    def exited(self) -> bool:
        """Whether the leader has ended."""

    def answer_bell(self) -> bool:
        """Called when `bell` can be read; false when it will not ring again."""
        return not self.exited()

    def look(self) -> Collection[Process]:
        """What runs of it now."""
        with self._lock:
            return [] if self.gone.is_set() else [process for process in self._find().values() if process.runs]

    def signal(self, number: int) -> bool:
        """Send a signal to all of the tree; false when nothing of it runs any more."""
        with self._lock:
            if self.gone.is_set():
                return False
            found = self._find().values()
            send(found, number)
            return any(process.runs for process in found)

    def end(self, patience: float, meanwhile: Callable[[float], None]) -> None:
        """End what is left of the tree, TERM first when there is patience.

        Args:
            patience: Seconds between TERM and KILL; 0 for KILL at once.
            meanwhile: Called with a number of seconds in place of sleeping.
        """
        if self.gone.is_set():
            return
        with self._lock:
            self._look_afresh()
        if patience > 0 and self.signal(signal.SIGTERM):
            until = time.monotonic() + patience
            while time.monotonic() < until and not self._over():
                meanwhile(0.02)
        until = time.monotonic() + KILL_SECONDS
        # Again and again: a tree may grow while it is being felled.
        while not self._over() and time.monotonic() < until:
            with self._lock:
                self._look_afresh()
                fell(self._find)
            meanwhile(0.005)
        with self._lock:
            self._close()
            self.gone.set()

    @abstractmethod
    def _find(self) -> dict[int, Process]:
        """Everything of the tree that can be found, ended ones that were not reaped included."""

    @abstractmethod
    def _look_afresh(self) -> None:
        """Before it is felled: take nothing for granted that was found out about other processes."""

    @abstractmethod
    def _over(self) -> bool:
        """Whether nothing of the tree is left."""

    @abstractmethod
    def _close(self) -> None:
        """Let go of what was needed to watch."""
