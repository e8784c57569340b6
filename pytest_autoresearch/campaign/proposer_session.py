"""What a proposer may ask of its session, and tell it, while it works on one experiment."""

from __future__ import annotations

from collections.abc import Callable, Iterable
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
        records: Every judged experiment.
        diff: Gives the change of an experiment, as a patch.
        artifacts: The campaign's files.
        spend: Told what is used.
        say: Shows a sentence to the person who watches.
    """

    def __init__(
        self, flight: InFlight, records: Iterable[Experiment], diff: Callable[[Experiment], str], artifacts: Artifacts,
        spend: Callable[[Usage], None], say: Callable[[str], None],
    ) -> None:  # fmt: skip
        self._flight = flight
        self._records = {record.number: record for record in records}
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

    def spent(self, usage: Usage) -> None:
        self._flight.usage += usage
        self._spend(usage)

    def say(self, text: str) -> None:
        self._tell(text)

    def wait_for(self, what: str) -> None:
        self._flight.progress = Progress(what or "proposing")

    def note(self, text: str) -> None:
        """Keep the notes in a file, for people and for the next session; the record has the same words."""
        self._flight.notes = _cut(text)
        self._artifacts.make()
        part = self._artifacts.notes.with_suffix(".part")
        part.write_text(self._flight.notes + "\n", "utf-8")
        part.replace(self._artifacts.notes)

    def keep(self, name: str, text: str) -> None:
        (self._artifacts.make_experiment(self._flight.number) / name).write_text(text, "utf-8", "replace")

    @property
    def known_notes(self) -> str:
        """The notes in the file, which a person may have edited; without a file, the last record's notes."""
        try:
            return _cut(self._artifacts.notes.read_text("utf-8", "replace"))
        except OSError:
            texts = (self._records[number].notes for number in sorted(self._records, reverse=True))
            return _cut(next((notes for notes in texts if notes), ""))

    def look(self, number: int) -> str:
        record = self._records.get(number)
        if record is None:
            have = f"there are 0000 to {max(self._records):04d}" if self._records else "there are none yet"
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


def _cut(notes: str) -> str:
    return notes.encode("utf-8", "replace")[:MOST_NOTES_BYTES].decode("utf-8", "ignore").strip()
