"""What a proposer may ask of its session, and tell it, while it works on one experiment."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path

from pytest_autoresearch.campaign.digest import looked_at
from pytest_autoresearch.core.experiment import Experiment, Usage

NOTES = "notes.md"
MOST_NOTES_BYTES = 4000
_MOST_LOG_BYTES = 1024 * 1024
_SCORING = b"--- scoring ---"


class SessionDesk:
    """See `proposers.base.Desk`.

    Args:
        records: Every judged experiment.
        diff: The change of an experiment, as a patch.
        artifacts: The campaign's folder; an experiment's is called after its number.
        number: Of the experiment that is worked on.
        spent: Told what is used.
        say: Told what a person should hear.

    Attributes:
        usage: What this experiment's proposals have used.
        notes: The notes as they were rewritten here; empty where they were not.
    """

    def __init__(
        self,
        records: Iterable[Experiment],
        diff: Callable[[Experiment], str],
        artifacts: Path,
        number: int,
        spent: Callable[[Usage], None],
        say: Callable[[str], None],
    ) -> None:
        self.usage = Usage()
        self.notes = ""
        self._records = {record.number: record for record in records}
        self._diff = diff
        self._artifacts = artifacts
        self._number = number
        self._tell_spent = spent
        self._tell = say

    def take_over(self, owed: Experiment) -> None:
        """An earlier session paid for this one's proposal: that stands in its record, and is not spent again."""
        self.usage, self.notes = owed.usage, owed.notes

    def spent(self, usage: Usage) -> None:
        self.usage += usage
        self._tell_spent(usage)

    def say(self, text: str) -> None:
        self._tell(text)

    def note(self, text: str) -> None:
        """The file is for people, and for the next session; the record has the same words for good."""
        self.notes = text.encode("utf-8", "replace")[:MOST_NOTES_BYTES].decode("utf-8", "ignore").strip()
        self._artifacts.mkdir(parents=True, exist_ok=True)
        part = self._artifacts / f".{NOTES}.part"
        part.write_text(self.notes + "\n", "utf-8")
        part.replace(self._artifacts / NOTES)

    def keep(self, name: str, text: str) -> None:
        folder = self._artifacts / f"{self._number:04d}"
        folder.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text, "utf-8", "replace")

    @property
    def known_notes(self) -> str:
        """As the file has them, which a person may have edited; else as the last record that rewrote them has them."""
        try:
            text = (self._artifacts / NOTES).read_text("utf-8", "replace")
        except OSError:
            texts = (self._records[number].notes for number in sorted(self._records, reverse=True))
            text = next((notes for notes in texts if notes), "")
        return text.encode("utf-8", "replace")[:MOST_NOTES_BYTES].decode("utf-8", "ignore").strip()

    def look(self, number: int) -> str:
        record = self._records.get(number)
        if record is None:
            have = f"there are 0000 to {max(self._records):04d}" if self._records else "there are none yet"
            return f"there is no experiment {number:04d}: {have}"
        return looked_at(record, self._diff(record), self._log(number))

    def _log(self, number: int) -> str:
        """What training said: not the scorer, which has seen validation text."""
        try:
            with (self._artifacts / f"{number:04d}" / "train.log").open("rb") as file:
                log = file.read(_MOST_LOG_BYTES)
        except OSError:
            return ""
        return log.partition(_SCORING)[0].decode("utf-8", "replace")
