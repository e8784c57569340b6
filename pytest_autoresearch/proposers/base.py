"""What every proposer sees and what it answers. A proposer edits files in a folder; it knows neither git nor pytest."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from pytest_autoresearch.experiment import Experiment, Proposal


@dataclass(frozen=True, slots=True)
class Context:
    """What a proposer may look at, and where it edits.

    Attributes:
        number: The experiment's number.
        folder: The tree to edit: the branch head, freshly checked out.
        editable: The paths that may change, relative to `folder`.
        program: The text of `program.md`.
        records: Every judged experiment of the campaign, by number.
        running: Descriptions of the experiments under way, by number.
        root: The user's checkout; to read, never to write.
        experiments: The folder of acceptance rules and of the queue, inside `root`.
    """

    number: int
    folder: Path
    editable: tuple[str, ...]
    program: str
    records: tuple[Experiment, ...]
    running: tuple[tuple[int, str], ...]
    root: Path
    experiments: Path


class Proposer(Protocol):
    """A source of proposals. Called from one lane thread at a time."""

    @property
    def name(self) -> str: ...

    def propose(self, context: Context) -> Proposal | None:
        """Edit the files in `context.folder`; None when there is nothing left to try, which ends the campaign.

        Raises:
            Refused: There is a proposal but it cannot be put into the tree; it carries the proposal and says why.
        """
        ...

    def repair(self, context: Context, proposal: Proposal, failure: str) -> Proposal | None:
        """Edit again after a refusal, the tree being fresh; None gives the idea up, which makes it a crash."""
        ...
