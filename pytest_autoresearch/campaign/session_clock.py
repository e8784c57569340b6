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
    """

    def __init__(self, hours: float | None, stop: Path | None = None) -> None:
        self._stop = stop
        self._hours = hours
        self._ends = math.inf if hours is None else time.monotonic() + hours * 3600
        self._closed = threading.Event()

    @property
    def over(self) -> str:
        """Why no more experiments start, in a sentence; empty if they may."""
        if self._is_asked():
            return "stopped by `autoresearch stop`"
        return f"{self._hours:g} hours are over (--autoresearch-hours)" if time.monotonic() > self._ends else ""

    def left(self) -> float:
        """Seconds until the hours are over; infinite without a limit."""
        return max(0.0, self._ends - time.monotonic())

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

    def forget_stop(self) -> None:
        """An earlier request to end was for another session."""
        if self._stop is not None:
            self._stop.unlink(missing_ok=True)

    def _is_asked(self) -> bool:
        return self._stop is not None and self._stop.exists()

    def close(self) -> None:
        """The session is being ended."""
        self._closed.set()
