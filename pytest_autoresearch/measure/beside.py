"""Runs of one experiment side by side, on lanes that no other experiment needs now. Knows nothing of the keep rule."""

from __future__ import annotations

from collections.abc import Callable, Hashable
from concurrent.futures import Future
from types import TracebackType
from typing import Generic, Protocol, Self, TypeVar

from pytest_autoresearch.core.run import Run
from pytest_autoresearch.ledger.worktree import Worktree
from pytest_autoresearch.measure.lane_threads import in_thread

Order = TypeVar("Order")


class FreePlaces(Protocol):
    """Lanes that no experiment uses now, each with a worktree. Safe on every thread."""

    def borrow(self) -> tuple[Worktree, int] | None:
        """A worktree and a lane; None if no lane is free, or an experiment waits for one."""
        ...

    def is_wanted(self, lane: int) -> bool:
        """Whether an experiment waits for this borrowed lane."""
        ...

    def give(self, lane: int) -> None:
        """The borrowed lane is free again."""
        ...


class NoPlaces:
    """No lane is ever free. See `FreePlaces`."""

    def borrow(self) -> tuple[Worktree, int] | None:
        return None

    def is_wanted(self, lane: int) -> bool:
        return True

    def give(self, lane: int) -> None: ...


class GivenUp(Exception):
    """A borrowed run ended without a result, because an experiment waited for its lane or because it is not needed."""


class Borrowed:
    """Whether a run may go on, on a lane that is only borrowed."""

    def __init__(self, places: FreePlaces, lane: int) -> None:
        self._places = places
        self._lane = lane
        self._needed = True

    def check(self) -> None:
        """Called again and again while the run goes on.

        Raises:
            GivenUp: It may not.
        """
        if not self._needed or self._places.is_wanted(self._lane):
            raise GivenUp

    def end(self) -> None:
        """It is not needed."""
        self._needed = False


class Beside(Generic[Order]):
    """The runs of one experiment that were begun before the keep rule asked for them.

    Used on the experiment's thread. At the end, runs that still go on end without a result. That depends only on the
    results of other runs, so it favours no metric.

    Args:
        places: Where they may be made.
        make: Makes a run; called on a thread of its own.

    Attributes:
        left: At the end, the results that nobody asked for.
    """

    def __init__(
        self, places: FreePlaces, make: Callable[[Order, Worktree, int, Borrowed], tuple[Run, ...]]
    ) -> None:  # fmt: skip
        self._places = places
        self._make = make
        self._begun: dict[Hashable, tuple[Borrowed, Future[tuple[Run, ...]]]] = {}
        self.left: tuple[Run, ...] = ()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for borrowed, _ in self._begun.values():
            borrowed.end()
        for _, made in self._begun.values():
            if made.exception() is None:  # this waits; an error of a run that nobody asked for says nothing
                self.left += made.result()

    def has(self, key: Hashable) -> bool:
        """Whether the run was begun."""
        return key in self._begun

    def begin(self, key: Hashable, order: Callable[[], Order]) -> bool:
        """Begin a run if there is a place for it.

        Args:
            key: The run's name.
            order: Makes its order.
        """
        place = self._places.borrow()
        if place is None:
            return False
        tree, lane = place
        borrowed = Borrowed(self._places, lane)
        given = order()

        def work() -> tuple[Run, ...]:
            try:
                return self._make(given, tree, lane, borrowed)
            finally:
                self._places.give(lane)

        self._begun[key] = borrowed, in_thread(work)
        return True

    def result(self, key: Hashable) -> tuple[Run, ...]:
        """The runs under this name, once they are made; none if it was not begun, or given up.

        Raises:
            BaseException: What `make` has raised.
        """
        if key not in self._begun:
            return ()
        _, made = self._begun.pop(key)
        try:
            return made.result()
        except GivenUp:
            return ()
