"""The lanes that no experiment uses now. Experiments wait for one in the order of their numbers.

While nobody waits, an experiment with a lane may borrow others for more runs. It has to give them back when they are
wanted, so that no experiment waits for the runs of another one that are made early.
"""

from __future__ import annotations

import threading
from collections.abc import Callable

from pytest_autoresearch.core.errors import Stopped


class FreeLanes:
    """Safe on every thread.

    Args:
        lanes: How many lanes there are.
        ends: Says why no more runs may begin; empty if they may.
        holds: Whether no run may begin now; call `look_again` when that changes.

    Attributes:
        lanes: How many lanes there are.
    """

    def __init__(self, lanes: int, ends: Callable[[], str], holds: Callable[[], bool] = lambda: False) -> None:
        self.lanes = lanes
        self._ends = ends
        self._holds = holds
        self._changed = threading.Condition()
        self._free = list(range(lanes))
        self._borrowed: list[int] = []
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

    def borrow(self) -> int | None:
        """Another lane; None if none is free, or an experiment waits for one."""
        with self._changed:
            if self._closed or self._waiting or not self._free or self._holds():
                return None
            self._free.sort()
            self._borrowed.append(self._free.pop())
            return self._borrowed[-1]

    def is_wanted(self, lane: int) -> bool:
        """Whether an experiment waits for this borrowed lane: those that were borrowed last go back first."""
        with self._changed:
            missing = max(0, len(self._waiting) - len(self._free))
            return lane in self._borrowed[len(self._borrowed) - missing :]

    @property
    def borrowed(self) -> tuple[int, ...]:
        """The lanes that are borrowed now."""
        with self._changed:
            return tuple(self._borrowed)

    def _is_turn(self, number: int) -> bool:
        return self._closed or (bool(self._free) and number == min(self._waiting) and not self._holds())

    def look_again(self) -> None:
        """Runs may begin again, or no more."""
        with self._changed:
            self._changed.notify_all()

    def give(self, lane: int) -> None:
        """The lane is free."""
        with self._changed:
            if lane in self._borrowed:
                self._borrowed.remove(lane)
            self._free.append(lane)
            self._changed.notify_all()

    def close(self) -> None:
        """Let nobody wait any longer."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()
