"""The page as a session goes: written after experiments, in little of the session's time, and always at its end.

A page is a view of the records, like `results.tsv`: one that cannot be written is a notice, never the end of a night.
A file of the same name that is somebody else's stays as it is. Knows nothing of pytest.
"""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from pytest_autoresearch.core.errors import UserError
from pytest_autoresearch.core.experiment import Experiment
from pytest_autoresearch.ledger.git import Git
from pytest_autoresearch.reports.page.artifacts import Artifact, gather
from pytest_autoresearch.reports.page.contents import About
from pytest_autoresearch.reports.page.details import Packs
from pytest_autoresearch.reports.page.document import page
from pytest_autoresearch.reports.progress import available, draw

PAGE, PICTURE = "report.html", "progress.png"
SHARE = 1 / 100  # of the session's time that may go into pages
_FIRST_SECONDS = 0.1  # what a page is taken to take before one was written
_LEAST_READING = 0.05  # seconds for the logs and changes of what is new
_LAST_READING = 3.0
_HURRIED_READING = 0.3  # a CI runner kills 7.5 s after its signal
_PICTURE_FROM = 30.0  # a session of fewer seconds would wait longer for its picture than for an experiment
_OURS = b"pytest-autoresearch"  # near the beginning of each file that is ours
_OURS_BYTES = 4096


class PageWriter:
    """Writes `report.html`, and at the end of a session of half a minute or more `progress.png` beside it.

    Args:
        folder: Where both go.
        git: Of the repository that has the commits.
        artifacts: Where the logs of an experiment are.
        look: The records as they are now, and what an audit of them says, in a sentence or nothing.
        notice: Takes a sentence for the end of the session.

    Attributes:
        written: The page, once there is one.
    """

    def __init__(
        self, folder: Path, git: Git, artifacts: Callable[[Experiment], Path],
        look: Callable[[], tuple[Sequence[Experiment], str]], notice: Callable[[str], None],
    ) -> None:  # fmt: skip
        self.written: Path | None = None
        self._folder = folder
        self._git = git
        self._where = artifacts
        self._look = look
        self._notice = notice
        self._artifacts: dict[int, Artifact] = {}
        self._packs = Packs()
        self._began = time.monotonic()
        self._spent, self._last = 0.0, _FIRST_SECONDS
        self._failed = False

    def checkpoint(self) -> None:
        """Write the page now, unless pages would then have taken more than their share of the time."""
        left = self._left()
        if left >= self._last and not self._failed:
            self._write(running=True, reading=max(left - self._last, _LEAST_READING))

    def finish(self, hurried: bool = False) -> None:
        """Write it for the last time in this session, whatever that takes.

        Args:
            hurried: Whether a signal ended the session: then nothing is done that may wait.
        """
        self._write(running=False, reading=_HURRIED_READING if hurried else max(self._left(), _LAST_READING))
        long = time.monotonic() - self._began >= _PICTURE_FROM
        if self.written and long and not hurried and available():
            with self._noticing(PICTURE):
                target = self._folder / PICTURE
                check(target)
                draw(self._look()[0], target)

    def _left(self) -> float:
        return SHARE * (time.monotonic() - self._began) - self._spent

    def _write(self, running: bool, reading: float) -> None:
        began = time.monotonic()
        with self._noticing(PAGE):
            records, audit = self._look()
            if any(record.verdict is not None for record in records):
                new = [record for record in records if record.number not in self._artifacts]
                for record, artifact in gather(new, self._git, self._where, reading):
                    self._artifacts[record.number] = artifact
                left_out = sum(record.number not in self._artifacts for record in records)
                about = About(running, time.time(), audit, left_out)
                write(self._folder / PAGE, page(records, self._artifacts, about, self._packs))
                self.written = self._folder / PAGE
        self._last = time.monotonic() - began
        self._spent += self._last

    @contextlib.contextmanager
    def _noticing(self, name: str) -> Iterator[None]:
        try:
            yield
        except Exception as error:  # whatever it is, the records are in git and the night goes on
            if not self._failed:
                self._notice(str(error) if isinstance(error, UserError) else f"{name} was not written: {error!r}")
            self._failed = True


def write(path: Path, text: str) -> None:
    """Put the page into the file's place once it is whole.

    Raises:
        UserError: What is there is not ours.
        OSError: It cannot be written there; what was there before stays.
    """
    check(path)
    part = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        part.write_text(text, "utf-8", "replace")
        part.replace(path)
    except BaseException:
        part.unlink(missing_ok=True)
        raise


def check(path: Path) -> None:
    """See that nobody else's file is replaced.

    Raises:
        UserError: What is there is not ours.
    """
    if not path.exists():
        return
    with contextlib.suppress(OSError), path.open("rb") as file:
        if _OURS in file.read(_OURS_BYTES):
            return
    raise UserError(
        f"{path.name} was there before and no report made it, so it is left as it is: "
        f"`autoresearch report --output FILE` writes elsewhere"
    )
