"""What every proposer sees and what it answers. A proposer edits files in a folder; it knows neither git nor pytest."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from pytest_autoresearch.core.experiment import Direction, Experiment, Proposal, Usage
from pytest_autoresearch.core.failure import Failure
from pytest_autoresearch.core.run import Limits


@dataclass(frozen=True, slots=True)
class Terms:
    """What holds for every experiment of the session.

    Attributes:
        metric_name: What decides.
        direction: Which way it improves.
        limits: What a run may use.
        command: The training command, as a person would type it.
        hardware: What it runs on, for people.
        interface: What the harness offers to training, as text; empty where it says nothing of it.
        scored: Whether a scorer measures the metric, and not training itself.
    """

    metric_name: str = "val_bpb"
    direction: Direction = Direction.MINIMIZE
    limits: Limits = field(default_factory=lambda: Limits(300.0, 30.0, 600.0))
    command: str = "python train.py"
    hardware: str = ""
    interface: str = ""
    scored: bool = False


class ProposerSession(Protocol):
    """What a proposer may ask of its session, and tell it, while it works on one experiment.

    Attributes:
        memory: What the proposer keeps until it repairs the proposal, such as a conversation. None at first; gone with
            the experiment.
    """

    memory: Any

    def spent(self, usage: Usage) -> None:
        """This much was used just now: told at once, so that no end of the session loses it."""
        ...

    def say(self, text: str) -> None:
        """A sentence for the person who watches: that it waits, and what for."""
        ...

    def note(self, text: str) -> None:
        """Rewrite the notes that are shown with every later proposal; cut at 4,000 bytes."""
        ...

    def keep(self, name: str, text: str) -> None:
        """Leave a file of this name for people, in the experiment's own folder."""
        ...

    def look(self, number: int) -> str:
        """An earlier experiment's record, diff, curve and end of the log, in at most 12,000 characters.

        One sentence where there is none of that number.
        """
        ...


class NoSession:
    """Nobody listens or answers: for tests, and for a proposer that is used by itself."""

    def __init__(self) -> None:
        self.memory: Any = None

    def spent(self, usage: Usage) -> None: ...

    def say(self, text: str) -> None: ...

    def note(self, text: str) -> None: ...

    def keep(self, name: str, text: str) -> None: ...

    def look(self, number: int) -> str:
        return f"there is no experiment {number:04d}"


@dataclass(frozen=True, slots=True)
class Context:
    """What a proposer may look at, and where it edits.

    Attributes:
        number: The experiment's number.
        folder: The tree to edit: the branch head, freshly checked out.
        editable: The paths that may change, relative to `folder`.
        program: The text of `program.md`.
        records: Every judged experiment of the campaign, by number.
        running: The numbers and proposals of the experiments under way.
        root: The user's checkout; to read, never to write.
        experiments: The folder of acceptance rules and of the queue, inside `root`.
        terms: What holds for every experiment.
        notes: What a proposer wrote down for later ones.
        session: To ask and to tell.
        resolution: The steps in which it is fair to show a metric to whoever learns from it; 0 for as it is. What is
            finer is noise.
    """

    number: int
    folder: Path
    editable: tuple[str, ...]
    program: str
    records: tuple[Experiment, ...]
    running: tuple[tuple[int, Proposal], ...]
    root: Path
    experiments: Path
    terms: Terms = field(default_factory=Terms)
    notes: str = ""
    session: ProposerSession = field(default_factory=NoSession)
    resolution: float = 0.0


class Proposer(Protocol):
    """A source of proposals. Called from one lane thread at a time."""

    @property
    def name(self) -> str: ...

    @property
    def listens(self) -> bool:
        """Whether it can be told what is wrong with a proposal and make a better one of it."""
        ...

    def propose(self, context: Context) -> Proposal | None:
        """Edit the files in `context.folder`; None when there is nothing left to try, which ends the campaign.

        Raises:
            Refused: There is a proposal but it cannot be put into the tree; it carries the proposal and says why.
            Spent: The user's budget for proposals is used up, which ends the campaign as well.
            ProposerError: It cannot go on.
        """
        ...

    def repair(self, context: Context, proposal: Proposal, failure: Failure) -> Proposal | None:
        """Edit again after a refusal or a crash, the tree being the branch head again, without the earlier edit.

        None gives the idea up, which makes it a crash. Raises as `propose` does.
        """
        ...
