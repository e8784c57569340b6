"""The interface of proposers. A proposer edits files in a folder; it knows neither git nor pytest."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

from pytest_autoresearch.core.experiment import Direction, Experiment, Proposal, Usage
from pytest_autoresearch.core.failure import Failure
from pytest_autoresearch.core.run import Limits
from pytest_autoresearch.source.editable import Editable


@dataclass(frozen=True, slots=True)
class Terms:
    """The facts that hold for every experiment of the session.

    Attributes:
        metric_name: The metric that decides.
        direction: Which way the metric improves.
        limits: The limits of a run.
        command: The training command, as typed in a shell.
        hardware: Name of the hardware, for people.
        interface: The harness's description of what it offers to training; may be empty.
        scored: Whether a scorer measures the metric, instead of training itself.
        lanes: How many experiments run at the same time.
    """

    metric_name: str = "val_bpb"
    direction: Direction = Direction.MINIMIZE
    limits: Limits = field(default_factory=lambda: Limits(300.0, 30.0, 600.0))
    command: str = "python train.py"
    hardware: str = ""
    interface: str = ""
    scored: bool = False
    lanes: int = 1


class ProposerSession(Protocol):
    """The session's services for a proposer while it works on one experiment.

    Attributes:
        memory: What the proposer keeps until it repairs the proposal, such as a conversation. None at first; gone with
            the experiment.
        stock: What the proposer keeps for later experiments, in this session and the next ones; empty at first.
    """

    memory: Any
    stock: str

    def spent(self, usage: Usage) -> None:
        """Report usage at once, so that it is counted however the session ends."""
        ...

    def say(self, text: str) -> None:
        """Show a sentence to the user, such as why the proposer is waiting."""
        ...

    def heard(self, messages: Sequence[str]) -> None:
        """These messages of the user were shown to whoever makes the proposal; the record says so."""
        ...

    def wait_for(self, what: str) -> None:
        """Show in the live line what the proposer is waiting for; empty once it goes on."""
        ...

    def note(self, text: str) -> None:
        """Replace the notes shown with every later proposal; cut at 4,000 bytes."""
        ...

    def keep(self, name: str, text: str) -> None:
        """Save a file of this name in the experiment's folder, for people."""
        ...

    def look(self, number: int) -> str:
        """An earlier experiment's record, diff, curve and end of the log, in at most 12,000 characters.

        One sentence if there is no such experiment.
        """
        ...


class NoSession:
    """The services without a session, for tests and for using a proposer alone."""

    def __init__(self) -> None:
        self.memory: Any = None
        self.stock = ""

    def spent(self, usage: Usage) -> None: ...

    def say(self, text: str) -> None: ...

    def heard(self, messages: Sequence[str]) -> None: ...

    def wait_for(self, what: str) -> None: ...

    def note(self, text: str) -> None: ...

    def keep(self, name: str, text: str) -> None: ...

    def look(self, number: int) -> str:
        return f"there is no experiment {number:04d}"


@dataclass(frozen=True, slots=True)
class Context:
    """The input of a proposer: what it may read, and the folder that it edits.

    Attributes:
        number: The experiment's number.
        folder: The tree to edit: the branch head, freshly checked out.
        editable: The files that may change, relative to `folder`. Iterating gives the patterns of the ini key.
        program: The text of `program.md`.
        records: Every judged experiment of the campaign, by number.
        running: The numbers and proposals of the experiments under way.
        root: The user's checkout; read only.
        experiments: The folder of acceptance rules and of the queue, inside `root`.
        terms: The facts that hold for every experiment.
        notes: Notes of earlier proposals.
        session: The session's services.
        messages: What the user said since the last recorded proposal, each message with its time.
        resolution: Metrics are rounded to multiples of this before a model sees them, because finer differences are
            noise; 0 for no rounding.
    """

    number: int
    folder: Path
    editable: Editable
    program: str
    records: tuple[Experiment, ...]
    running: tuple[tuple[int, Proposal], ...]
    root: Path
    experiments: Path
    terms: Terms = field(default_factory=Terms)
    notes: str = ""
    session: ProposerSession = field(default_factory=NoSession)
    resolution: float = 0.0
    messages: tuple[str, ...] = ()


class Proposer(Protocol):
    """A source of proposals. Called from one lane thread at a time."""

    @property
    def name(self) -> str: ...

    @property
    def listens(self) -> bool:
        """Whether it can repair a proposal when told the failure."""
        ...

    def propose(self, context: Context) -> Proposal | None:
        """Edit the files in `context.folder`; None if there is nothing left to try, which ends the campaign.

        Raises:
            Refused: The proposal cannot be applied to the tree; carries the proposal and the reason.
            Spent: The user's budget for proposals is used up, which also ends the campaign.
            ProposerError: The proposer itself failed (expired key, outage).
        """
        ...

    def repair(self, context: Context, proposal: Proposal, failure: Failure) -> Proposal | None:
        """Edit again after a refusal or a crash. The tree is the branch head again, without the earlier edit.

        None gives up the idea; the experiment is then a crash. Raises as `propose` does.
        """
        ...


@runtime_checkable
class Mixed(Protocol):
    """A proposer that is several: which one an experiment belongs to."""

    def maker(self, number: int) -> Proposer:
        """Who made the proposal of an experiment, or whose turn it is."""
        ...


@runtime_checkable
class Rehearsing(Protocol):
    """A proposer that makes its first proposal before the baseline is trained, which shows that it works."""

    def rehearse(self, context: Context) -> None:
        """Edit the files in `context.folder` and remember the edit; raises as `Proposer.propose` does."""
        ...


@dataclass(frozen=True, slots=True)
class Asked:
    """What a proposer that costs something is asked for the first proposal.

    Attributes:
        text: All that it is shown.
        most_usd: The highest cost of one request, in US dollars; None if prices are unknown.
    """

    text: str
    most_usd: float | None = None


@runtime_checkable
class Asking(Protocol):
    """A proposer that costs money, or the time of an agent."""

    def asked(self, context: Context) -> Asked:
        """What it would be asked; nothing is sent."""
        ...
