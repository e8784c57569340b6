"""What a session tries next: what earlier sessions owe, then whatever the proposer thinks of.

Called from lane threads. Knows nothing of runs or verdicts.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable

from pytest_autoresearch.core.experiment import Experiment, Proposal, Usage
from pytest_autoresearch.proposers.base import Context, Mixed, Proposer, Rehearsing


class WorkQueue:
    """The candidates that are owed a verdict, and the session's proposer.

    Attributes:
        usage: What the session's proposals have used so far, whatever became of them.
        proposer: Who proposes; None until somebody asks.
    """

    def __init__(self, make_proposer: Callable[[], Proposer]) -> None:
        self.usage = Usage()
        self.proposer: Proposer | None = None
        self._make_proposer = make_proposer
        self._asking = threading.Condition()
        self._asked = False
        self._due: set[int] = set()
        self._new: set[int] = set()  # those that have not looked for an owed candidate yet
        self._lock = threading.Lock()
        self._owed: list[Experiment] = []
        self._known: list[Experiment] = []

    def owe(self, candidates: Iterable[Experiment]) -> None:
        """Try these first: they were committed before and have no verdict that counts."""
        with self._lock:
            self._owed += candidates

    def next_owed(self, number: int) -> Experiment | None:
        """Take the first owed candidate off the queue for this experiment. Those with lower numbers come first."""
        with self._asking:
            self._asking.wait_for(lambda: min(self._new, default=number) >= number)
            self._new.discard(number)
            self._asking.notify_all()
        with self._lock:
            return self._owed.pop(0) if self._owed else None

    def know(self, candidates: Iterable[Experiment]) -> None:
        """Remember candidates that are owed a verdict, in a session that tries the checkout's edit instead."""
        self._known += candidates

    def repeated(self, proposal: Proposal) -> str:
        """The commit of the pending candidate that this proposal repeats; empty if there is none."""
        same = (one.commit for one in self._known if one.proposal.source and one.proposal.source == proposal.source)
        return next(same, "")

    @property
    def listens(self) -> bool:
        """Whether the session's proposer takes time and can be told of a conflict; false until somebody asked it."""
        return self.proposer is not None and self.proposer.listens

    def hears(self, number: int) -> bool:
        """Whether the one that proposes this experiment can be told of a failure; false until somebody asked it."""
        return self.proposer is not None and maker(self.proposer, number).listens

    @property
    def rehearses(self) -> bool:
        """Whether the session's proposer can show that it works before the baseline."""
        with self._asking:
            return isinstance(self._made(), Rehearsing)

    def rehearse(self, context: Context) -> None:
        """Let the session's proposer show that it works, if it can."""
        with self._asking:
            proposer = self._made()
            if isinstance(proposer, Rehearsing):
                proposer.rehearse(context)

    def expect(self, number: int) -> None:
        """The experiment will ask for its first proposal, unless it passes."""
        with self._asking:
            self._due.add(number)
            self._new.add(number)

    def passes(self, number: int) -> None:
        """The experiment has its first proposal, or none."""
        with self._asking:
            self._due.discard(number)
            self._new.discard(number)
            self._asking.notify_all()

    def ask(self, number: int, question: Callable[[Proposer], Proposal | None]) -> Proposal | None:
        """Put a question to the session's proposer, which answers one at a time.

        Args:
            number: The experiment that asks: those with lower numbers come first, if they are expected.
            question: Called with the proposer.
        """
        with self._asking:
            self._asking.wait_for(lambda: not self._asked and min(self._due, default=number) >= number)
            self._asked = True
            proposer = self._made()
        try:
            return question(proposer)
        finally:
            with self._asking:
                self._asked = False
                self._asking.notify_all()

    def _made(self) -> Proposer:
        if self.proposer is None:
            self.proposer = self._make_proposer()
        return self.proposer

    def spend(self, usage: Usage) -> None:
        """Count what a proposal has used."""
        with self._lock:
            self.usage += usage


def maker(proposer: Proposer, number: int) -> Proposer:
    """The one of a mix that proposes this experiment; any other proposer itself."""
    return proposer.maker(number) if isinstance(proposer, Mixed) else proposer
