"""The lock of a campaign, shared by its sessions until their processes end, and what each session tells the others.

A session's file is locked while the session lives, so a file without a lock was left by a killed session. Knows no git.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import secrets
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path

from pytest_autoresearch.core.errors import UserError

_PATIENCE_SECONDS = 5.0


@dataclass(frozen=True, slots=True)
class Session:
    """What a session tells the other sessions of its campaign.

    Attributes:
        pid: Its process on this machine.
        began: When it began, in seconds since the epoch.
        folder: The checkout that it works in.
        last: The largest number that it has for its experiments.
        programs: The numbers of its candidates without a verdict, by the digests of their programs.
    """

    pid: int
    began: float
    folder: str = ""
    last: int = -1
    programs: Mapping[str, int] = field(default_factory=dict)


class Presence:
    """This process's hold on the lock of one campaign.

    Args:
        home: The folder of the locks.
        folder: The checkout that this process works in.

    Attributes:
        earlier: The sessions that were in the campaign when this one joined it, the oldest first.
    """

    def __init__(self, home: Path, folder: Path) -> None:
        self._home = home
        self.earlier: list[Session] = []
        self._held: int | None = None
        self._tag = ""
        self._mine = Session(os.getpid(), time.time(), str(folder))
        self._file: Path | None = None
        self._told = -1

    def join(self, tag: str, when_alone: Callable[[], None]) -> None:
        """Join the campaign.

        Args:
            tag: The campaign's name.
            when_alone: Called first if no other session is in the campaign; it can clean up after killed sessions.

        Raises:
            UserError: Another session works on the campaign in this checkout, or another process has the campaign for
                itself and does not release it in a few seconds.
        """
        self._held = self._open(tag)
        with contextlib.suppress(BlockingIOError):
            fcntl.flock(self._held, fcntl.LOCK_EX | fcntl.LOCK_NB)
            when_alone()
        until = time.monotonic() + _PATIENCE_SECONDS
        while True:
            try:
                fcntl.flock(self._held, fcntl.LOCK_SH | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if time.monotonic() > until:
                    self.leave()
                    raise UserError(
                        f"the campaign {tag} is being audited or pulled: wait until this has ended"
                    ) from None
            time.sleep(0.05)
        if (other := self._introduce(tag)) is not None:
            self.leave()
            raise UserError(
                f"the session with pid {other.pid} has worked on the campaign {tag} in this checkout since "
                f"{time.strftime('%H:%M', time.localtime(other.began))}: wait for its end; for more experiments at a "
                "time give one session more --autoresearch-lanes, or start this one in a clone (`git clone . ../clone`)"
            )

    def leave(self) -> None:
        """Leave the campaign."""
        if self._held is not None:
            os.close(self._held)
            self._held = None
        if self._file is not None:
            self._file.unlink(missing_ok=True)
            os.close(self._told)
            self._file = None

    # ---------------------------------------------------------------------------------------- the other sessions

    def _introduce(self, tag: str) -> Session | None:
        """Tell the other sessions of this one; returns the one that works in this checkout, if there is one."""
        self._tag = tag
        with self._mutex():
            self.earlier = self._others()
            here = [other for other in self.earlier if other.folder == self._mine.folder]
            if here:
                return here[0]
            # A tag has no "@".
            self._file = self._home / f"session@{tag}@{os.getpid()}-{secrets.token_hex(4)}"
            self._told = os.open(self._file, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC)
            fcntl.flock(self._told, fcntl.LOCK_EX)
            self._tell(self._mine)
        return None

    def claim(self, first: int, count: int) -> int:
        """Have `count` numbers for this session alone; returns the first, which is at least the given one."""
        with self._mutex():
            first = max(first, self._mine.last + 1, *(other.last + 1 for other in self._others()))
            self._tell(replace(self._mine, last=first + count - 1))
        return first

    def announce(self, program: str, programs: Mapping[str, int]) -> int | None:
        """Tell the other sessions of this session's candidates, unless another one has the same program under way.

        Args:
            program: The digest of the newest candidate's program.
            programs: The numbers of all candidates, by the digests of their programs.

        Returns:
            The number of another session's candidate with the same program; None if there is none.
        """
        with self._mutex():
            for other in self._others():
                if program in other.programs:
                    return other.programs[program]
            self._tell(replace(self._mine, programs=dict(programs)))
        return None

    def _others(self) -> list[Session]:
        """The other sessions of the campaign on this machine that live, the oldest first."""
        found = []
        for path in self._home.glob(f"session@{self._tag}@*"):
            if path == self._file:
                continue
            with contextlib.suppress(FileNotFoundError), path.open("rb") as file:
                try:
                    fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
                    path.unlink(missing_ok=True)  # left by a killed session
                except BlockingIOError:
                    found.append(Session(**json.loads(file.read())))
        return sorted(found, key=lambda other: other.began)

    def _tell(self, said: Session) -> None:
        self._mine = said
        if self._file is not None:  # else this process reads a campaign without joining it
            os.ftruncate(self._told, 0)
            os.pwrite(self._told, json.dumps(asdict(said)).encode(), 0)

    @contextlib.contextmanager
    def _mutex(self) -> Iterator[None]:
        """Held for moments, so that no session reads what another one is writing."""
        self._home.mkdir(parents=True, exist_ok=True)
        with (self._home / "sessions.lock").open("a") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            yield

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
