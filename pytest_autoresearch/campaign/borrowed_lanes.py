"""The lanes that an experiment borrows for runs beside its own, each with a worktree."""

from __future__ import annotations

from collections.abc import Callable

from pytest_autoresearch.campaign.free_lanes import FreeLanes
from pytest_autoresearch.ledger.worktree import Worktree


class BorrowedLanes:
    """See `measure.beside.FreePlaces`. Safe on every thread.

    Args:
        free: The lanes that no experiment uses now.
        worktree: Claims the worktree for a lane, which no experiment has.
    """

    def __init__(self, free: FreeLanes, worktree: Callable[[int], Worktree]) -> None:
        self._free = free
        self._worktree = worktree
        self._trees: dict[int, Worktree] = {}

    def borrow(self) -> tuple[Worktree, int] | None:
        lane = self._free.borrow()
        if lane is None:
            return None
        try:
            if lane not in self._trees:
                self._trees[lane] = self._worktree(lane)
        except BaseException:
            self._free.give(lane)
            raise
        return self._trees[lane], lane

    def is_wanted(self, lane: int) -> bool:
        return self._free.is_wanted(lane)

    def give(self, lane: int) -> None:
        self._free.give(lane)

    def release(self) -> None:
        """Let other sessions have the worktrees, but not those of runs that still go on."""
        for lane, tree in self._trees.items():
            if lane not in self._free.borrowed:
                tree.release()
