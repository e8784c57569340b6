"""The lock of a campaign, shared by its sessions until their processes end. Knows no git."""

from __future__ import annotations

import contextlib
import fcntl
import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from pytest_autoresearch.core.errors import UserError

_PATIENCE_SECONDS = 5.0


class Presence:
    """This process's hold on the lock of one campaign.

    Args:
        home: The folder of the locks.
    """

    def __init__(self, home: Path) -> None:
        self._home = home
        self._held: int | None = None

    def join(self, tag: str, when_alone: Callable[[], None]) -> None:
        """Join the campaign.

        Args:
            tag: The campaign's name.
            when_alone: Called first if no other session is in the campaign; it can clean up after killed sessions.

        Raises:
            UserError: Another process has the campaign for itself and does not release it in a few seconds.
        """
        self._held = self._open(tag)
        with contextlib.suppress(BlockingIOError):
            fcntl.flock(self._held, fcntl.LOCK_EX | fcntl.LOCK_NB)
            when_alone()
        until = time.monotonic() + _PATIENCE_SECONDS
        while True:
            try:
                fcntl.flock(self._held, fcntl.LOCK_SH | fcntl.LOCK_NB)
                return
            except BlockingIOError:
                if time.monotonic() > until:
                    self.leave()
                    raise UserError(
                        f"the campaign {tag} is being audited or pulled: wait until this has ended"
                    ) from None
            time.sleep(0.05)

    def leave(self) -> None:
        """Leave the campaign."""
        if self._held is not None:
            os.close(self._held)
            self._held = None

    @contextlib.contextmanager
    def alone(self, tag: str) -> Iterator[None]:
        """Have the campaign for this process alone. A session that begins meanwhile waits a few seconds, then fails.

        Raises:
            UserError: Another session is in the campaign.
        """
        mine = self._held  # set if this process is a session
        held = self._open(tag) if mine is None else mine
        try:
            try:
                fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise UserError(f"a session of the campaign {tag} runs here: wait until it has ended") from None
            yield
        finally:
            if mine is None:
                os.close(held)
            else:
                with contextlib.suppress(BlockingIOError):
                    fcntl.flock(held, fcntl.LOCK_SH | fcntl.LOCK_NB)

    def _open(self, tag: str) -> int:
        self._home.mkdir(parents=True, exist_ok=True)
        return os.open(self._home / f"campaign-{tag}.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC)
