"""Starts the budget of a run when its process asks, and hands it the training rows at that moment.

Notes what the process used of processors and GPUs before.
"""

from __future__ import annotations

import os
import socket
import tempfile
import time
from collections.abc import Callable, Iterable
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Self

from pytest_autoresearch.runners.supervisor import Process

_GO = b"go\n"
_RANKS = 128  # that may ask at one moment


class Clock:
    """The parent's end of `harness.begin()`: answering the first request starts the budget.

    A process asks by a socket that it inherits, once. The ranks that a launcher starts do not inherit it: each of them
    connects to a socket in the file system, `door`, and the connection is the request. All are given the rows.

    Args:
        rows: A descriptor of the training rows, which this object closes. It is sent with each answer and not before.
        before: Called with this clock when a process asks first: the last moment before it has data. It may take
            seconds.

    Attributes:
        door: The path of the socket, in a folder of its own.
        begun: When the clock started, in seconds from the start of the process; None before.
        held: How long the process waited for its answer, in seconds.
        begun_ns: The same moment on the wall clock, in nanoseconds since the epoch, to compare with file times.
        cpu_seconds: The processor time that all processes have used before the clock started.
        gpu_seconds: How long the GPUs were busy before the clock started, all together; None if unknown.
    """

    def __init__(self, rows: int | None = None, before: Callable[[Clock], object] = lambda clock: None) -> None:
        self._rows = [] if rows is None else [rows]
        self._before = before
        self.begun: float | None = None
        self.held = 0.0
        self.begun_ns = 0
        self.cpu_seconds = 0.0
        self.gpu_seconds: float | None = None
        self._spent: dict[tuple[int, float], float] = {}
        self._started = 0.0
        self._asked = b""
        self._ours, self._theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
        self._ours.setblocking(False)
        # Not in TMPDIR: the path of a socket has at most 100 characters or so.
        self._folder = tempfile.TemporaryDirectory(prefix="autoresearch-clock-", dir="/tmp", ignore_cleanup_errors=True)
        self.door = Path(self._folder.name, "clock")
        self._listening = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self._listening.setblocking(False)
        self._listening.bind(str(self.door))
        self._listening.listen(_RANKS)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for end in (self._ours, self._theirs, self._listening):
            end.close()
        self._folder.cleanup()
        for rows in self._rows:
            os.close(rows)

    @property
    def child_fd(self) -> int:
        """The file descriptor that the process inherits."""
        return self._theirs.fileno()

    @property
    def seconds(self) -> float:
        """Seconds since the start of the process."""
        return time.monotonic() - self._started

    @property
    def requests(self) -> tuple[tuple[socket.socket, Callable[[], bool]], ...]:
        """Each socket on which a request may come, and what answers it: false when no more can come there."""
        return (self._ours, self.answer), (self._listening, self._answer_rank)

    def handed_over(self, started: float) -> None:
        """Call this after the process has inherited its end; `started` is its start on the monotonic clock."""
        self._started = started
        self._theirs.close()  # an open copy here would hide that the process closed its own

    def spent(self, processes: Iterable[Process], limit: float) -> str:
        """Note the processor time until the clock starts. An error message if it is over the limit, else an empty one.

        Two counts, and the larger one holds: what each process had when it was last seen, and what the processes have
        now with the children that they waited for. The first one has children that nobody waits for, the second one
        those that ended between two looks. Without both, the time of a process is lost.
        """
        if self.begun is not None:
            return ""
        seen = list(processes)
        self._spent |= {(process.pid, process.started): process.cpu_seconds for process in seen}
        now = sum(process.cpu_seconds + process.waited_seconds for process in seen)
        self.cpu_seconds = max(self.cpu_seconds, now, sum(self._spent.values()))
        if self.cpu_seconds <= limit:
            return ""
        return f"training used {limit:,.0f} s of processor time and had not called harness.begin()"

    def spent_on_gpus(self, seconds: float | None, limit: float) -> str:
        """Note how long the GPUs were busy until the clock starts. An error message if it is over the limit."""
        if self.begun is not None or seconds is None:
            return ""
        self.gpu_seconds = seconds
        if seconds <= limit:
            return ""
        return f"training kept its GPUs busy for {limit:g} s and had not called harness.begin()"

    def answer(self) -> bool:
        """Read the request; false when no more requests can come."""
        try:
            asked = self._ours.recv(64)
            self._asked += asked
            if b"begin\n" in self._asked:
                self._begin()
                socket.send_fds(self._ours, [_GO], self._rows)
                return False
        except BlockingIOError:
            return True
        except OSError:
            return False
        return bool(asked) and len(self._asked) < 64

    def _answer_rank(self) -> bool:
        with suppress(OSError):  # the process may have ended
            connection, _ = self._listening.accept()
            with connection:
                self._begin()
                socket.send_fds(connection, [_GO], self._rows)
        return True

    def _begin(self) -> None:
        """Start the clock, before the answer is sent, so that every step is within the budget."""
        if self.begun is None:
            since = self.seconds
            with suppress(OSError):  # an error on our side must not stop the run
                self._before(self)
            self.held = self.seconds - since
            self.begun, self.begun_ns = self.seconds, time.time_ns()
