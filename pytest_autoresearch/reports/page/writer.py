"""Writes the page during a session, in at most 1% of its time, and always at its end.

The page is a view of the records, like `results.tsv`: if it cannot be written, the session shows a notice and goes on.
A file of the same name that no report made is not replaced. Knows nothing of pytest.
"""

from __future__ import annotations

import contextlib
import os
import pickle
import time
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path

from pytest_autoresearch.core.errors import UserError
from pytest_autoresearch.core.experiment import Experiment
from pytest_autoresearch.ledger.git import Git
from pytest_autoresearch.reports.page.artifacts import Artifact, gather
from pytest_autoresearch.reports.page.contents import About
from pytest_autoresearch.reports.page.details import Packs
from pytest_autoresearch.reports.page.document import pieces
from pytest_autoresearch.reports.progress import available, draw
from pytest_autoresearch.reports.spool import Place, Spool

PAGE, PICTURE = "report.html", "progress.png"
SHARE = 1 / 100  # of the session's time that pages may take
_FIRST_SECONDS = 0.1  # assumed time for the first page
_LEAST_READING = 0.05  # seconds for the logs and diffs of new experiments
_LAST_READING = 3.0
_HURRIED_READING = 0.3  # a CI runner kills 7.5 s after its signal
_PICTURE_FROM = 30.0  # seconds; in a shorter session the picture would take longer than an experiment
_OURS = b"pytest-autoresearch"  # near the beginning of each file that we wrote
_OURS_BYTES = 4096


class PageWriter:
    """Writes `report.html`, and after a session of at least half a minute `progress.png` beside it.

    Args:
        folder: The folder of both files.
        git: Of the repository that has the commits.
        artifacts: Gives the log folder of an experiment.
        look: Gives the current records, and the audit's sentence or an empty one.
        notice: Takes a sentence that the session shows at its end.
        where: Says where the session is, in a sentence; asked while it runs.

    Attributes:
        written: The page's path once it is written.
    """

    def __init__(
        self, folder: Path, git: Git, artifacts: Callable[[Experiment], Path],
        look: Callable[[], tuple[Sequence[Experiment], str]], notice: Callable[[str], None],
        where: Callable[[], str] = str,
    ) -> None:  # fmt: skip
        self.written: Path | None = None
        self._folder = folder
        self._git = git
        self._where = artifacts
        self._look = look
        self._notice = notice
        self._artifacts = _Kept()
        self._where_it_is = where
        self._packs = Packs()
        self._began = time.monotonic()
        self._spent, self._last = 0.0, _FIRST_SECONDS
        self._failed = False

    def checkpoint(self) -> None:
        """Write the page now, unless pages would then take more than their share of the time."""
        left = self._left()
        if left >= self._last and not self._failed:
            self._write(running=True, reading=max(left - self._last, _LEAST_READING))

    def finish(self, hurried: bool = False) -> None:
        """Write the page at the end of the session.

        Args:
            hurried: Whether a signal ended the session. Then the picture and most of the reading are skipped.
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
                    self._artifacts.keep(record.number, artifact)
                left_out = sum(record.number not in self._artifacts for record in records)
                about = About(running, self._where_it_is() if running else "", time.time(), audit, left_out)
                write(self._folder / PAGE, pieces(records, self._artifacts, about, self._packs))
                self.written = self._folder / PAGE
        self._last = time.monotonic() - began
        self._spent += self._last

    @contextlib.contextmanager
    def _noticing(self, name: str) -> Iterator[None]:
        try:
            yield
        except Exception as error:  # the records are in git, so the session goes on
            if not self._failed:
                self._notice(str(error) if isinstance(error, UserError) else f"{name} was not written: {error!r}")
            self._failed = True


class _Kept(Mapping[int, Artifact]):
    """The artifacts of a session, which are read once and put aside."""

    def __init__(self) -> None:
        self._aside = Spool()
        self._packed: dict[int, Place] = {}

    def keep(self, number: int, artifact: Artifact) -> None:
        self._packed[number] = self._aside.put(zlib.compress(pickle.dumps(artifact)))

    def __getitem__(self, number: int) -> Artifact:
        artifact: Artifact = pickle.loads(zlib.decompress(self._aside.get(self._packed[number])))
        return artifact

    def __contains__(self, number: object) -> bool:  # without reading it
        return number in self._packed

    def __iter__(self) -> Iterator[int]:
        return iter(self._packed)

    def __len__(self) -> int:
        return len(self._packed)


def write(path: Path, texts: Iterable[str]) -> None:
    """Write the page and replace the file in one step.

    Raises:
        UserError: The existing file is not ours.
        OSError: The page cannot be written; the existing file stays.
    """
    check(path)
    part = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        with part.open("w", encoding="utf-8", errors="replace") as file:
            file.writelines(texts)  # a long campaign's page is not in memory a second time
        part.replace(path)
    except BaseException:
        part.unlink(missing_ok=True)
        raise


def check(path: Path) -> None:
    """Check that an existing file is one of ours.

    Raises:
        UserError: The existing file is not ours.
    """
    if not path.exists():
        return
    with contextlib.suppress(OSError), path.open("rb") as file:
        if _OURS in file.read(_OURS_BYTES):
            return
    raise UserError(
        f"{path.name} exists and is not a report of ours, so it is not replaced: "
        f"type `autoresearch report --output FILE` to write elsewhere"
    )
