"""The end of a session, as a proposer must know it: the hours are over, the user asked for it, or it is being ended."""

from __future__ import annotations

import math
import threading
import time
from pathlib import Path

from pytest_autoresearch.core.errors import Spent, Stopped

_LOOK_SECONDS = 1.0  # between two looks for the file


class SessionClock:
    """The time of one session. Safe on any thread.

    Args:
        hours: After how many hours no experiment starts; None for no end.
        stop: The file with which the user asks for the end; None for no such file.
        pause: The file with which the user asks for a pause, which does not count as time of the session.
    """

    def __init__(self, hours: float | None, stop: Path | None = None, pause: Path | None = None) -> None:
        self._stop = stop
        self._pause = pause
        self._paused_since: float | None = None
        self._lock = threading.Lock()
        self._hours = hours
        self._ends = math.inf if hours is None else time.monotonic() + hours * 3600
        self._closed = threading.Event()

    @property
    def over(self) -> str:
        """Why no more experiments start, in a sentence; empty if they may."""
        if self._is_asked():
            return "stopped by `autoresearch stop`"
        return "" if self.left() else f"{self._hours:g} hours are over (--autoresearch-hours)"

    @property
    def is_paused(self) -> bool:
        """Whether no run may begin now, because the user asked for a pause."""
        asked = self._pause is not None and self._pause.exists() and not self._closed.is_set()
        now = time.monotonic()
        with self._lock:
            if asked and self._paused_since is None:
                self._paused_since = now
            elif not asked and self._paused_since is not None:
                self._ends += now - self._paused_since
                self._paused_since = None
        return asked

    def left(self) -> float:
        """Seconds until the hours are over; infinite without a limit."""
        paused = self.is_paused
        with self._lock:
            now = self._paused_since if paused and self._paused_since is not None else time.monotonic()
            return max(0.0, self._ends - now)

    def check(self) -> None:
        """Check that a proposer may go on.

        Raises:
            Stopped: The session is being ended.
            Spent: The hours are over, or the user asked for the end.
        """
        if self._closed.is_set():
            raise Stopped("the session is ending")
        if over := self.over:
            raise Spent(over)

    def wait(self, seconds: float) -> None:
        """Sleep, but not longer than the session; raises as `check` does."""
        until = time.monotonic() + min(seconds, self.left() + 0.01)
        while not self._closed.is_set() and (left := until - time.monotonic()) > 0 and not self._is_asked():
            self._closed.wait(min(left, _LOOK_SECONDS))
        self.check()

    def forget_requests(self) -> None:
        """An earlier request to end or to pause was for another session."""
        for file in (self._stop, self._pause):
            if file is not None:
                file.unlink(missing_ok=True)

    def _is_asked(self) -> bool:
        return self._stop is not None and self._stop.exists()

    def close(self) -> None:
        """The session is being ended."""
        self._closed.set()
