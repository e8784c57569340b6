"""The main thread's inbox: calls that lanes want made there, and slots that a lane is done with.

Every hook of the user runs on the main thread, so that nothing that a user writes needs a lock.
"""

from __future__ import annotations

import contextlib
import queue
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any

import pytest

from pytest_autoresearch.campaign.view import CampaignView
from pytest_autoresearch.core.errors import Stopped
from pytest_autoresearch.core.experiment import Proposal
from pytest_autoresearch.proposers.base import Context
from pytest_autoresearch.session.slots import Slot

# What a user's hook may raise: pytest's own outcomes are no `Exception`.
RAISED = (Exception, pytest.fail.Exception, pytest.skip.Exception)


class MainThread:
    """The inbox. `call` and `done` belong to lane threads, `wait` and `close` to the main thread."""

    def __init__(self) -> None:
        self._inbox: queue.SimpleQueue[tuple[Callable[[], Any], Future[Any]] | Slot | None] = queue.SimpleQueue()
        self._closed = False

    def call(self, function: Callable[[], Any]) -> Any:
        """What the function returns, called on the main thread.

        Raises:
            Stopped: The session is ending.
        """
        future: Future[Any] = Future()
        self._inbox.put((function, future))
        if self._closed:
            _refuse(future)
        return future.result()

    def done(self, slot: Slot) -> None:
        """A lane is done with the slot."""
        self._inbox.put(slot)

    def wake(self) -> None:
        """End the present `wait`. Safe in a signal handler, since `SimpleQueue.put` is re-entrant."""
        self._inbox.put(None)

    def wait(self, seconds: float) -> Slot | None:
        """Make one call, or return the next slot that a lane is done with; None if neither comes in time."""
        message = None
        with contextlib.suppress(queue.Empty):
            message = self._inbox.get(timeout=seconds)
        if not isinstance(message, tuple):
            return message
        function, future = message
        if self._closed:
            _refuse(future)
            return None
        if future.set_running_or_notify_cancel():
            try:
                future.set_result(function())
            except RAISED as error:
                future.set_exception(error)
        return None

    def close(self) -> None:
        """Make no more calls: whoever asks for one hears that the session is ending."""
        self._closed = True


def _refuse(future: Future[Any]) -> None:
    with contextlib.suppress(Exception):  # both threads may refuse it
        future.set_exception(Stopped("the session is ending"))


class UserHooks:
    """The user's hooks, for lanes: each call is made on the main thread. See `campaign.common.Hooks`."""

    def __init__(self, config: pytest.Config, main: MainThread) -> None:
        self._hook = config.hook
        self._main = main
        self.proposes = bool(config.hook.pytest_autoresearch_propose.get_hookimpls())

    def propose(self, campaign: CampaignView, context: Context, failure: str) -> Proposal | None:
        hook = self._hook.pytest_autoresearch_propose
        made: Proposal | None = self._main.call(lambda: hook(campaign=campaign, context=context, failure=failure))
        return made

    def guard(self, campaign: CampaignView, context: Context, proposal: Proposal) -> str | None:
        hook = self._hook.pytest_autoresearch_guard
        said: str | None = self._main.call(lambda: hook(campaign=campaign, context=context, proposal=proposal))
        return said
