"""What a proposer may ask of its session, and tell it, while it works on one experiment."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from pytest_autoresearch.campaign.digest import looked_at
from pytest_autoresearch.campaign.in_flight import InFlight
from pytest_autoresearch.core.artifacts import Artifacts
from pytest_autoresearch.core.experiment import Experiment, Usage
from pytest_autoresearch.core.run import Progress

MOST_NOTES_BYTES = 4000
_MOST_LOG_BYTES = 1024 * 1024
_SCORING = b"--- scoring ---"


class ExperimentSession:
    """See `proposers.base.ProposerSession`.

    Args:
        flight: The experiment that the proposer works on.
        records: Every judged experiment, by number.
        diff: Gives the change of an experiment, as a patch.
        artifacts: The campaign's files.
        spend: Told what is used.
        say: Shows a sentence to the person who watches.
    """

    def __init__(
        self, flight: InFlight, records: Sequence[Experiment], diff: Callable[[Experiment], str], artifacts: Artifacts,
        spend: Callable[[Usage], None], say: Callable[[str], None],
    ) -> None:  # fmt: skip
        self._flight = flight
        self._records = records
        self._diff = diff
        self._artifacts = artifacts
        self._spend = spend
        self._tell = say

    @property
    def memory(self) -> Any:
        return self._flight.memory

    @memory.setter
    def memory(self, kept: Any) -> None:
        self._flight.memory = kept

    @property
    def stock(self) -> str:
        try:
            return self._artifacts.stock.read_text("utf-8")
        except (OSError, UnicodeError):
            return ""

    @stock.setter
    def stock(self, text: str) -> None:
        if text:
            _write(self._artifacts.stock, text)
        else:
            self._artifacts.stock.unlink(missing_ok=True)

    def spent(self, usage: Usage) -> None:
        self._flight.usage += usage
        self._spend(usage)

    def say(self, text: str) -> None:
        self._tell(text)

    def heard(self, messages: Sequence[str]) -> None:
        self._flight.heard = tuple(dict.fromkeys((*self._flight.heard, *messages)))

    def wait_for(self, what: str) -> None:
        self._flight.progress = Progress(what or "proposing")

    def note(self, text: str) -> None:
        """Keep the notes in a file, for people and for the next session; the record has the same words."""
        self._flight.notes = _cut(text)
        self._artifacts.make()
        _write(self._artifacts.notes, self._flight.notes + "\n")

    def keep(self, name: str, text: str) -> None:
        (self._artifacts.make_experiment(self._flight.number) / name).write_text(text, "utf-8", "replace")

    @property
    def known_notes(self) -> str:
        """The notes in the file, which a person may have edited; without a file, the last record's notes."""
        try:
            return _cut(self._artifacts.notes.read_text("utf-8", "replace"))
        except OSError:
            return _cut(next((record.notes for record in reversed(self._records) if record.notes), ""))

    def look(self, number: int) -> str:
        record = next((record for record in self._records if record.number == number), None)
        if record is None:
            have = f"there are 0000 to {self._records[-1].number:04d}" if self._records else "there are none yet"
            return f"there is no experiment {number:04d}: {have}"
        return looked_at(record, self._diff(record), self._log(number))

    def _log(self, number: int) -> str:
        """What training printed, without the scorer's part: the scorer has seen validation text."""
        try:
            with self._artifacts.log(number).open("rb") as file:
                log = file.read(_MOST_LOG_BYTES)
        except OSError:
            return ""
        return log.partition(_SCORING)[0].decode("utf-8", "replace")


def _write(path: Path, text: str) -> None:
    """Write the whole file, or leave it as it was."""
    part = path.with_suffix(".part")
    part.write_text(text, "utf-8")
    part.replace(path)


def _cut(notes: str) -> str:
    return notes.encode("utf-8", "replace")[:MOST_NOTES_BYTES].decode("utf-8", "ignore").strip()
