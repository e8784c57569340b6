"""The lanes that no experiment uses now. Experiments wait for one in the order of their numbers."""

from __future__ import annotations

import threading
from collections.abc import Callable

from pytest_autoresearch.core.errors import Stopped


class FreeLanes:
    """Safe on every thread.

    Args:
        lanes: How many lanes there are.
        ends: Says why no more runs may begin; empty if they may.

    Attributes:
        lanes: How many lanes there are.
    """

    def __init__(self, lanes: int, ends: Callable[[], str]) -> None:
        self.lanes = lanes
        self._ends = ends
        self._changed = threading.Condition()
        self._free = list(range(lanes))
        self._waiting: set[int] = set()
        self._closed = False

    def take(self, number: int) -> int:
        """Wait for a lane.

        Args:
            number: The experiment's number.

        Raises:
            Stopped: The session is ending, or no more runs may begin.
        """
        with self._changed:
            self._waiting.add(number)
            try:
                waited = not self._is_turn(number)
                self._changed.wait_for(lambda: self._is_turn(number))
            finally:
                self._waiting.discard(number)
                self._changed.notify_all()
            if self._closed:
                raise Stopped("the session is ending")
            if waited and (why := self._ends()):
                raise Stopped(why)
            self._free.sort()
            return self._free.pop(0)

    def others(self, lane: int) -> list[int]:
        """Every other lane, for the experiment that is conducted alone."""
        return [other for other in range(self.lanes) if other != lane]

    def _is_turn(self, number: int) -> bool:
        return self._closed or (bool(self._free) and number == min(self._waiting))

    def give(self, lane: int) -> None:
        """The lane is free."""
        with self._changed:
            self._free.append(lane)
            self._changed.notify_all()

    def close(self) -> None:
        """Let nobody wait any longer."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()
