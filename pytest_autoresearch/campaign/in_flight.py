"""What is under way: one value for each number, from the start of an experiment until its verdict.

The lane's thread writes its own value; the main thread reads all of them.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from typing import Any

from pytest_autoresearch.campaign.right_of_way import RightOfWay
from pytest_autoresearch.core.experiment import Experiment, Proposal, Repair, Usage
from pytest_autoresearch.core.run import Progress


@dataclass(slots=True, eq=False)
class InFlight:
    """One experiment under way.

    Attributes:
        number: The experiment's number.
        place: Its worktree.
        lane: Where it runs; None before its first run, and while it is with its proposer.
        made_on: The head that it was proposed on, if it was merged into a later one before it ran; else empty.
        thread: The lane's thread while it works on the experiment, else None.
        progress: Where the experiment is.
        beside: Where its runs on borrowed lanes are, by lane.
        proposal: What is tried; None until there is a proposal.
        candidate: The committed proposal, which has no verdict yet; None before the commit, and while a failed
            candidate is with its proposer.
        waiting: The commit that the next session measures if this process is killed; empty if it is not worth that.
        repairs: The failures that went back to the proposer and got another proposal.
        usage: What the proposer has used for this experiment.
        notes: The proposer's notes, as it rewrote them for this experiment; empty if it left them alone.
        heard: What the user said to the proposer, as far as it was shown for this experiment.
        memory: What the proposer keeps until it repairs the proposal, such as a conversation.
        timings: Seconds by stage.
    """

    number: int
    place: int
    lane: int | None = None
    made_on: str = ""
    thread: threading.Thread | None = None
    progress: Progress = field(default_factory=lambda: Progress("proposing"))
    beside: dict[int, Progress] = field(default_factory=dict)
    proposal: Proposal | None = None
    candidate: Experiment | None = None
    waiting: str = ""
    repairs: list[Repair] = field(default_factory=list)
    usage: Usage = field(default_factory=Usage)
    notes: str = ""
    heard: tuple[str, ...] = ()
    memory: Any = None
    timings: dict[str, float] = field(default_factory=dict)

    @property
    def description(self) -> str:
        """What is tried, in a line; empty until there is a proposal."""
        return self.proposal.description if self.proposal else ""

    @property
    def by_lane(self) -> list[tuple[int | None, Progress]]:
        """Where it is on each lane, its own lane first; that is None while it has none."""
        return [(self.lane, self.progress), *sorted(self.beside.copy().items())]

    def account(self, experiment: Experiment) -> Experiment:
        """The experiment with what its proposal has taken so far."""
        return replace(
            experiment,
            made_on=self.made_on,
            repairs=tuple(self.repairs),
            usage=self.usage,
            notes=self.notes,
            heard=self.heard,
            timings=dict(self.timings),
        )


class Flights:
    """The experiments under way, by number. Safe on every thread.

    Attributes:
        right_of_way: Which of them others wait for.
    """

    def __init__(self) -> None:
        self.right_of_way = RightOfWay()
        self.lock = threading.Lock()  # held where a candidate is compared with the others: two lanes may have one idea
        self._by_number: dict[int, InFlight] = {}

    def __iter__(self) -> Iterator[InFlight]:
        return iter(sorted(self._by_number.copy().values(), key=lambda flight: flight.number))

    def take(self, number: int, place: int) -> InFlight:
        """The number is under way from now on."""
        return self._by_number.setdefault(number, InFlight(number, place))

    def forget(self, number: int) -> InFlight | None:
        """The number is no longer under way; its value, if it was."""
        self.right_of_way.ends(number)
        return self._by_number.pop(number, None)

    @property
    def numbers(self) -> set[int]:
        return set(self._by_number)

    @property
    def candidates(self) -> list[Experiment]:
        """The commits without a verdict."""
        return [flight.candidate for flight in self if flight.candidate is not None]
