"""Which sessions take part in a campaign: a lock that each shares as long as its process lives. Knows no git."""

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
    """This process's part in one campaign of a repository.

    Args:
        home: The folder of the locks.
    """

    def __init__(self, home: Path) -> None:
        self._home = home
        self._held: int | None = None

    def join(self, tag: str, when_alone: Callable[[], None]) -> None:
        """Take part from now on.

        Args:
            when_alone: Called before, where nobody else takes part: whatever lies about was left by the dead.

        Raises:
            UserError: Somebody needs the campaign for himself, and goes on needing it.
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
                        f"the campaign {tag} is being audited, or moved between repositories: wait until that has ended"
                    ) from None
            time.sleep(0.05)

    def leave(self) -> None:
        """Take part no more."""
        if self._held is not None:
            os.close(self._held)
            self._held = None

    @contextlib.contextmanager
    def alone(self, tag: str) -> Iterator[None]:
        """No other session takes part meanwhile; one that begins waits a moment, and says so.

        Raises:
            UserError: One does.
        """
        mine = self._held  # of the session that this is, if it is one
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
