"""A mix of proposers: each has its share of the experiments, by their numbers, and sees the records of all."""

from __future__ import annotations

from collections.abc import Sequence

from pytest_autoresearch.core.errors import UserError
from pytest_autoresearch.core.experiment import Proposal
from pytest_autoresearch.core.failure import Failure
from pytest_autoresearch.core.mixture import turns
from pytest_autoresearch.proposers.base import Context, Proposer, Rehearsing


class MixProposer:
    """See `Proposer`.

    Args:
        members: The proposers, none of which is a mix.
        shares: Of each, from 0 to 1.
    """

    name = "mix"

    def __init__(self, members: Sequence[Proposer], shares: Sequence[float]) -> None:
        self._members = tuple(members)
        self._turns = turns(shares)
        self._order: list[int] = []
        self._made: dict[int, Proposer] = {}

    @property
    def listens(self) -> bool:
        """Whether one of them takes time and can be told a failure; see `maker` for a given experiment."""
        return any(member.listens for member in self._members)

    def maker(self, number: int) -> Proposer:
        """Who made the proposal of an experiment, or whose turn it is."""
        return self._made.get(number) or self._members[self._turn(number)]

    def propose(self, context: Context) -> Proposal | None:
        """Let the one whose turn it is propose; if it has nothing left, the next one.

        So it is, too, if the files that another one changed are nothing for it, such as a program without constants.
        """
        first, hindered = self._turn(context.number), []
        for turn in range(len(self._members)):
            member = self._members[(first + turn) % len(self._members)]
            self._made[context.number] = member  # first: its refusal goes back to it
            try:
                proposal = member.propose(context)
            except UserError as error:
                context.session.say(f"{error}; the others of the mix go on")
                hindered.append(error)
                continue
            if proposal is not None:
                return proposal
        if len(hindered) == len(self._members):
            raise hindered[0]
        return None

    def repair(self, context: Context, proposal: Proposal, failure: Failure) -> Proposal | None:
        """Let the one that made the proposal repair it."""
        return self.maker(context.number).repair(context, proposal, failure)

    def rehearse(self, context: Context) -> None:
        """Let those that can show that they work; they propose first, because their first edits are of this head."""
        for place, member in enumerate(one for one in self._members if isinstance(one, Rehearsing)):
            member.rehearse(context)
            mine = self._members.index(member)
            while mine not in self._order[place:]:
                self._order.append(next(self._turns))
            turn = self._order.index(mine, place)
            self._order[place], self._order[turn] = self._order[turn], self._order[place]

    def _turn(self, number: int) -> int:
        while len(self._order) < number:
            self._order.append(next(self._turns))
        return self._order[max(number, 1) - 1]
