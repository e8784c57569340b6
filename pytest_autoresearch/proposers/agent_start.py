"""One start of an agent: its result, what a session keeps of it, and a start before the baseline."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from pytest_autoresearch.core.agent_job import Finished
from pytest_autoresearch.core.errors import Spent
from pytest_autoresearch.core.experiment import Proposal, Usage
from pytest_autoresearch.proposers import agent_answer
from pytest_autoresearch.proposers.base import ProposerSession
from pytest_autoresearch.proposers.workspace import Edits

_SOON_SECONDS = 300.0  # a failure within this time may be temporary: agents retry an overloaded service for minutes


class Unavailable(Exception):
    """An agent can do nothing for a while: it is at a limit of its account, or its service is away.

    Attributes:
        ends: When that ends; None if nobody knows.
        limited: Whether it is a limit.
    """

    def __init__(self, said: str, ends: datetime | None = None, *, limited: bool = False) -> None:
        super().__init__(said)
        self.ends = ends
        self.limited = limited


class AgentCosts:
    """The costs of all starts of a session, by the agents' own account.

    Args:
        cap_usd: The limit; None for no limit.
    """

    def __init__(self, cap_usd: float | None) -> None:
        self.spent_usd = 0.0
        self._cap_usd = cap_usd

    def check(self, next_usd: float) -> None:
        """Check that the next start may cost so much.

        Raises:
            Spent: It may not.
        """
        spent, cap = self.spent_usd, self._cap_usd
        if cap is not None and (spent >= cap or spent + next_usd > cap):
            raise Spent(
                f"${spent:.2f} of ${cap:.2f} is spent by the agent's own account, and the next start could exceed the "
                "limit (--autoresearch-cost)"
            )


@dataclass(frozen=True, slots=True)
class Came:
    """The result of one start: how the agent ended, its description, and its edits.

    Attributes:
        agent: Its name.
        finished: How it ended.
        proposal: Its description of the edit.
        edits: Its edits; None if it changed nothing.
    """

    agent: str
    finished: Finished
    proposal: Proposal
    edits: Edits | None

    @property
    def fault(self) -> str:
        """Why it failed; empty if it did not."""
        if self.finished.why:
            return f"was stopped {self.finished.why}"
        if self.finished.exit_status is None:
            return "ended without an exit status"
        return f"ended with status {self.finished.exit_status}" if self.finished.exit_status else ""

    @property
    def failed(self) -> bool:
        """Whether it ended by itself, with a failure."""
        return not self.finished.why and self.finished.exit_status != 0

    @property
    def failed_soon(self) -> bool:
        """Whether it failed so soon that another start may help."""
        return self.failed and self.finished.seconds <= _SOON_SECONDS

    @property
    def ending(self) -> str:
        """How it ended without an edit."""
        return f"{self.fault} and changed nothing" if self.fault else "changed nothing"

    def last(self, lines: int) -> str:
        """The last lines of its output, on one line."""
        return agent_answer.last(self.finished.output, lines)


@dataclass(slots=True)
class Rehearsal:
    """The session of a start before the baseline: what the agent used and left is told to the experiment's own session.

    Attributes:
        before: The editable files before the start.
        real: The session that is there already.
        came: The result.
    """

    before: dict[str, bytes]
    real: ProposerSession
    memory: Any = None
    stock: str = ""
    came: Came | None = None
    used: list[Usage] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    kept: dict[str, str] = field(default_factory=dict)
    told: list[str] = field(default_factory=list)

    def heard(self, messages: Sequence[str]) -> None:
        self.told += messages

    def say(self, text: str) -> None:
        self.real.say(text)

    def wait_for(self, what: str) -> None:
        self.real.wait_for(what)

    def look(self, number: int) -> str:
        return self.real.look(number)

    def spent(self, usage: Usage) -> None:
        self.used.append(usage)

    def note(self, text: str) -> None:
        self.notes.append(text)

    def keep(self, name: str, text: str) -> None:
        self.kept[name] = text

    def tell(self, session: ProposerSession) -> None:
        """Tell the session everything, as if the agent had been started for it."""
        session.memory = self.memory
        session.heard(self.told)
        for usage in self.used:
            session.spent(usage)
        for text in self.notes:
            session.note(text)
        for name, text in self.kept.items():
            session.keep(name, text)


@dataclass(slots=True)
class Memory:
    """What the session keeps of one experiment.

    Attributes:
        proposed: Whether the agent was asked for a proposal, or has repaired one.
        edits: Its last edit; None if it made none.
        starts: How often the agent was started.
    """

    proposed: bool = False
    edits: Edits | None = None
    starts: int = 0
