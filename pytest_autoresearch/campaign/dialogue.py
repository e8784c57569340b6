"""The dialogue with a proposer about one experiment: the first proposal, and another one after each failure.

Runs on the lane's thread. Knows nothing of how a proposal is checked or run, only that it failed.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from pytest_autoresearch.campaign.common import Common
from pytest_autoresearch.campaign.in_flight import InFlight
from pytest_autoresearch.campaign.work_queue import WorkQueue, maker
from pytest_autoresearch.core.errors import GitError, Refused
from pytest_autoresearch.core.experiment import Experiment, Proposal, Repair
from pytest_autoresearch.core.failure import Failure
from pytest_autoresearch.core.text import one_line
from pytest_autoresearch.ledger.worktree import Worktree
from pytest_autoresearch.proposers.base import Context, Proposer
from pytest_autoresearch.proposers.prompt import asks_for_bolder, stale

_LOG_CHARACTERS = 6000


class Dialogue:
    """Asks for proposals, and takes failures back to whoever made them.

    Args:
        look: Gives the context that a proposer sees now; the branch head is its `base`.
        say: Shows a sentence to the person who watches.

    Attributes:
        base: The branch head that the proposal is made from.
        context: What the proposer was shown last.
        warned: Whether the proposer was warned of a near-duplicate.
        failed_programs: The digests of the programs that crashed.
    """

    def __init__(
        self, common: Common, flight: InFlight, queue: WorkQueue, tree: Worktree,
        look: Callable[[], tuple[str, Context]], say: Callable[[str], None],
    ) -> None:  # fmt: skip
        self.base, self.context = look()
        self.warned = False
        self.failed_programs: set[str] = set()
        self._common = common
        self._flight = flight
        self._queue = queue
        self._tree = tree
        self._look = look
        self._say = say
        self._owed = queue.next_owed(flight.number)
        if self._owed is not None:  # an earlier session paid for the proposal: the record says so, nobody pays again
            flight.usage, flight.notes = self._owed.usage, self._owed.notes
        self._proposal = Proposal("")
        self._failure: Failure | None = None
        self._unanswered: Repair | None = None
        self._sent_back = 0
        self._by_proposer = False  # and not by a user's hook, or by an earlier session

    @property
    def listens(self) -> bool:
        """Whether whoever made the proposal can be told of a failure and asked once more."""
        left = self._sent_back < self._common.settings.repairs
        return self._by_proposer and left and self._queue.hears(self._flight.number)

    def propose(self) -> Proposal | None:
        """Let the next proposal edit the tree; None if there is none.

        It is the candidate that an earlier session owes, else what the user's hook proposes, else what the proposer
        proposes.

        Raises:
            Refused: The proposal does not fit into the tree.
            Spent: The budget for proposals is used up.
            AutoresearchError: Git or the proposer failed, which says nothing about any candidate.
        """
        self._tree.reset(self.base)
        proposal = self._bring(self._owed) if self._owed is not None else self._ask()
        if proposal is None:
            return None
        self._answered()
        self._proposal = self._flight.proposal = proposal
        return proposal

    def look_again(self) -> None:
        """Go on from the branch head and the records as they are now."""
        self.base, self.context = self._look()

    def send_back(self, failure: Failure, failed: Experiment | None = None) -> bool:
        """Take a failure back, to be told with the next question; False if the failure stands.

        Args:
            failed: The candidate, if it was committed.
        """
        if failed is None:
            self._answered()  # the answer cannot be used, but it is one
            if self._sent_back >= self._common.settings.repairs:
                return False
        else:
            if not self.listens:
                return False
            self.failed_programs.add(failed.program)
            self._flight.candidate = None  # if the session ends now, no verdict is owed
            said = failure.log.strip()[-_LOG_CHARACTERS:].replace(f"{self._tree.folder}/", "")
            failure = replace(failure, log=said)
        self._failure = failure
        self._sent_back += 1
        self._unanswered = Repair(failure.stage, failure.crash, failed.commit if failed else "")
        return True

    def refused(self, proposal: Proposal) -> Proposal:
        """The refused proposal with its full description; the owed candidate, if it was one, is no longer tried."""
        self._proposal, self._owed = proposal, None
        return self._described(proposal)

    def _answered(self) -> None:
        if self._unanswered is not None:
            self._flight.repairs.append(self._unanswered)
            self._unanswered = None

    def _ask(self) -> Proposal | None:
        first = self._failure is None
        proposal = None
        if first or not self._by_proposer:
            proposal = self._common.hooks.propose(self._common.view, self.context, str(self._failure or ""))
            self._by_proposer = proposal is None
        if proposal is None:
            proposal = self._queue.ask(self._flight.number, self._question)
        if proposal is None:
            return None
        # A repaired candidate answers for the candidate that it came from.
        repeats = proposal.repeats or self._queue.repeated(proposal) if first else self._proposal.repeats
        return self._described(replace(proposal, repeats=repeats))

    def _question(self, proposer: Proposer) -> Proposal | None:
        if self._failure is not None:
            return proposer.repair(self.context, self._proposal, self._failure)
        self.look_again()  # another lane may have had its turn meanwhile: its experiment is under way now, or kept
        self._tree.reset(self.base)
        if maker(proposer, self._flight.number).listens and asks_for_bolder(self.context.records):
            count = stale(self.context.records)
            self._say(f"{count} experiments without a keep: the proposer is asked for a bolder change")
        return proposer.propose(self.context)

    def _described(self, proposal: Proposal) -> Proposal:
        """The proposal with the session's prefix, on one line."""
        prefix = self._common.settings.description
        given = proposal.description
        said = one_line(given if prefix and given.startswith(prefix) else f"{prefix} {given}")
        return replace(proposal, description=said or f"experiment {self._flight.number:04d}")

    def _bring(self, owed: Experiment) -> Proposal:
        """The change of an earlier candidate, brought to the branch's head."""
        proposal = replace(owed.proposal, repeats=owed.commit)
        try:
            self._tree.bring(owed.commit)
        except GitError as error:
            raise Refused(f"it does not apply to {self.base[:7]} ({error})", proposal, error.crash) from None
        return self._described(proposal)
