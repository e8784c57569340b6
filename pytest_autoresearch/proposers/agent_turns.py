"""One agent, or several in order: the first that is available proposes, and nobody's limit ends the session.

An agent that is at a limit is asked again when the limit ends; one that is away for another reason, after 1, 2, 4 … 30
minutes. Meanwhile the next agent proposes; if there is none, the session waits. None of this is a crash.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from datetime import datetime, timedelta
from typing import TypeVar

from pytest_autoresearch.core.errors import ProposerError
from pytest_autoresearch.core.experiment import Proposal
from pytest_autoresearch.core.failure import Failure
from pytest_autoresearch.proposers.agent_start import Memory, Unavailable
from pytest_autoresearch.proposers.base import Asked, Context
from pytest_autoresearch.proposers.command import CommandProposer

_Answer = TypeVar("_Answer")
_FIRST_WAIT, _LONGEST_WAIT = timedelta(minutes=1), timedelta(minutes=30)
_AFTER = timedelta(seconds=2)  # clocks differ


class _Turn:
    """An agent, and until when it is not asked.

    Attributes:
        until: None while it is available.
        error: Why it is not asked for the rest of the session; None if it is.
        said: Why it is not available.
        limited: Whether it is at a limit.
        known: Whether it has told when that ends.
        wait: The next wait without a known end.
    """

    def __init__(self, agent: CommandProposer) -> None:
        self.agent = agent
        self.until: datetime | None = None
        self.error: ProposerError | None = None
        self.said = ""
        self.limited = self.known = False
        self.wait = _FIRST_WAIT

    def put_off(self, reason: Unavailable, now: datetime) -> datetime:
        """Until when it is not asked."""
        self.said = str(reason)
        self.limited = reason.limited
        self.known = reason.ends is not None and reason.ends + _AFTER > now
        if reason.ends is not None and self.known:
            self.until = reason.ends.astimezone(now.tzinfo) + _AFTER
        else:
            self.until = now + self.wait
            self.wait = min(2 * self.wait, _LONGEST_WAIT)
        return self.until


class AgentTurns:
    """See `Proposer`.

    Args:
        agents: In the order in which they are asked.
        wait_hours: How long to wait for an agent, all waits for one proposal together.
        pause: Waits for the given seconds; raises if the session ends meanwhile.
        now: The time, with its zone.
    """

    name = "command"
    listens = True

    def __init__(
        self,
        agents: Sequence[CommandProposer],
        wait_hours: float,
        pause: Callable[[float], None] = time.sleep,
        now: Callable[[], datetime] = lambda: datetime.now().astimezone(),
    ) -> None:
        self._turns = [_Turn(agent) for agent in agents]
        self._patience = timedelta(hours=wait_hours)
        self._pause = pause
        self._now = now

    def rehearse(self, context: Context) -> None:
        """Let the first available agent make its first proposal before the baseline is trained.

        An agent at its limit has shown that it can be started and is signed in.
        """
        for turn in self._turns:
            try:
                turn.agent.rehearse(context)
                return
            except Unavailable as reason:
                self._put_off(turn, reason, context)

    def asked(self, context: Context) -> Asked:
        """The prompt, which is the same for all of them."""
        return self._turns[0].agent.asked(context)

    def propose(self, context: Context) -> Proposal | None:
        """The proposal of the first agent that is available; raises as `Proposer.propose` does."""
        context.session.memory = Memory()
        return self._ask(context, lambda agent: agent.propose(context))

    def repair(self, context: Context, proposal: Proposal, failure: Failure) -> Proposal | None:
        """The repair by the first agent that is available, whoever made the proposal."""
        return self._ask(context, lambda agent: agent.repair(context, proposal, failure))

    def _ask(self, context: Context, question: Callable[[CommandProposer], _Answer]) -> _Answer:
        began = self._now()
        while True:
            for turn in self._turns:
                if turn.error is not None or (turn.until is not None and turn.until > self._now()):
                    continue
                try:
                    answer = question(turn.agent)
                except Unavailable as reason:
                    self._put_off(turn, reason, context)
                except ProposerError as error:
                    turn.error = error
                    if all(one.error is not None for one in self._turns):
                        raise
                    context.session.say(f"{error}; the other agents go on without it")
                else:
                    turn.until, turn.wait = None, _FIRST_WAIT
                    return answer
            self._wait(context, began + self._patience)

    def _put_off(self, turn: _Turn, reason: Unavailable, context: Context) -> None:
        now = self._now()
        until = turn.put_off(reason, now)
        context.session.say(f"{reason}; asking it again at {_clock(until, now)}")

    def _wait(self, context: Context, deadline: datetime) -> None:
        """Wait until the first agent is available again.

        Raises:
            ProposerError: Not before the deadline.
        """
        until, turn = min(((one.until, one) for one in self._turns if one.until), key=lambda pair: pair[0])
        now = self._now()
        if now >= deadline or (turn.known and until > deadline):
            raise ProposerError(self._too_long(turn, until, now))
        # Without a known end, one more start at the deadline costs little.
        until = turn.until = min(until, max(deadline, now))
        what = "the agent's limit" if turn.limited else "the agent"
        context.session.wait_for(f"waiting until {_clock(until, now)} for {what}")
        try:
            self._pause(max(0.0, (until - now).total_seconds()))
        finally:
            context.session.wait_for("")

    def _too_long(self, turn: _Turn, until: datetime, now: datetime) -> str:
        limit = f"--autoresearch-wait-hours {self._patience.total_seconds() / 3600:g}"
        if turn.known and until > now:
            return f"{turn.said} (until {_clock(until, now)}, longer than {limit}): rerun the same command then"
        return f"{turn.said}; no edit for longer than {limit}: run it by hand first; then rerun the same command"


def _clock(at: datetime, now: datetime) -> str:
    """The time for people: with its date if that is not today."""
    return at.strftime("%H:%M" if at.date() == now.date() else "%a %d %b %H:%M")
