"""The end of a session, as a proposer must know it: the user's hours are over, or the session is being ended."""

from __future__ import annotations

import math
import threading
import time

from pytest_autoresearch.core.errors import Spent, Stopped


class SessionClock:
    """The time of one session. Safe on any thread.

    Args:
        hours: After how many hours no experiment starts; None for no end.
    """

    def __init__(self, hours: float | None) -> None:
        self._hours = hours
        self._ends = math.inf if hours is None else time.monotonic() + hours * 3600
        self._closed = threading.Event()

    @property
    def over(self) -> str:
        """The limit in a sentence if it is reached, else empty."""
        return f"{self._hours:g} hours are over (--autoresearch-hours)" if time.monotonic() > self._ends else ""

    def left(self) -> float:
        """Seconds until the hours are over; infinite without a limit."""
        return max(0.0, self._ends - time.monotonic())

    def check(self) -> None:
        """Check that a proposer may go on.

        Raises:
            Stopped: The session is being ended.
            Spent: The hours are over.
        """
        if self._closed.is_set():
            raise Stopped("the session is ending")
        if over := self.over:
            raise Spent(over)

    def wait(self, seconds: float) -> None:
        """Sleep, but not longer than the session; raises as `check` does."""
        self._closed.wait(min(seconds, self.left() + 0.01, threading.TIMEOUT_MAX))
        self.check()

    def close(self) -> None:
        """The session is being ended."""
        self._closed.set()
