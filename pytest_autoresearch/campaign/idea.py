"""One experiment on its way from a proposal to a commit, and back to its proposer after a failure.

Called on the thread of the lane whose tree it edits. Knows the proposer, the guard and the tree; nothing of how a
candidate is run, only that it failed.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Mapping
from dataclasses import replace

from pytest_autoresearch.campaign.proposer_session import SessionDesk
from pytest_autoresearch.campaign.work_queue import Attempts
from pytest_autoresearch.core.errors import GitError, NearDuplicate, Refused
from pytest_autoresearch.core.experiment import Experiment, Proposal, Repair
from pytest_autoresearch.core.failure import Failure, Stage
from pytest_autoresearch.core.run import Crash
from pytest_autoresearch.core.text import one_line
from pytest_autoresearch.keeprule.racing import distorts
from pytest_autoresearch.ledger.worktree import Worktree
from pytest_autoresearch.proposers.base import Context, Proposer
from pytest_autoresearch.proposers.prompt import asks_for_bolder, stale
from pytest_autoresearch.settings import Settings
from pytest_autoresearch.source import fingerprint, guard, near_duplicates

_FAILURE_CHARACTERS = 6000
_SIMPLER = 0.01  # a program that is smaller by this share is simpler


class Idea:
    """One experiment's proposal and what becomes of it until it has a metric.

    Args:
        look: The branch's head, which it is made from, and what a proposer is shown, as both are now.

    Attributes:
        repairs: The failures that went back to the proposer, and of which it made something else.
    """

    def __init__(
        self, attempts: Attempts, settings: Settings, tree: Worktree, desk: SessionDesk,
        look: Callable[[], tuple[str, Context]],
    ) -> None:  # fmt: skip
        self.repairs: list[Repair] = []
        self._attempts = attempts
        self._settings = settings
        self._tree = tree
        self._desk = desk
        self._look = look
        self._base, self._context = look()
        self._owed = attempts.owed()
        if self._owed is not None:
            desk.take_over(self._owed)
        self._failed: set[str] = set()  # the programs that crashed
        self._proposal = Proposal("")
        self._failure: Failure | None = None
        self._pending: Repair | None = None  # went back, and has no answer yet
        self._sent_back = 0
        self._by_proposer = False  # and not by a user's hook, or an earlier session
        self._told: Experiment | None = None  # what an earlier proposal of this experiment was nearly

    def begin(self) -> Experiment | None:
        """A guarded, committed proposal; or a refused one, whose commit is the base; None when there are no more.

        Raises:
            Spent: Nothing more may be spent on proposals.
            AutoresearchError: Git or a proposer failed, which says nothing of any candidate.
        """
        made, crash = self._advance()
        if made is not None or crash is None:
            return made
        self._tree.reset(self._base)
        proposal = self._described(self._proposal)
        refused = self._attempts.experiment(self._context.number, proposal, self._base, self._base, self._tree)
        return replace(refused, refusal=crash)

    def again(self, failed: Experiment, crash: Crash, stage: Stage, log: str) -> Experiment | None:
        """The candidate as its proposer has repaired it; None where it is given up, or cannot be sent back.

        Args:
            failed: It, with its commit.
            crash: What became of it.
            stage: Where.
            log: The end of what it said.
        """
        if not self._listens:
            return None
        self._sent_back += 1
        self._pending = Repair(stage, crash, failed.commit)
        self._failed.add(failed.program)
        self._attempts.in_flight.pop(failed.number, None)  # should the session end now, it is not owed a verdict
        said = log.strip()[-_FAILURE_CHARACTERS:].replace(f"{self._tree.folder}/", "")  # the lane is nobody's business
        self._failure = Failure(stage, crash, said)
        return self._advance()[0]

    def settle(self, experiment: Experiment) -> Experiment:
        """The experiment with what its proposal took; the proposer hears that it is done with."""
        if proposer := self._attempts.proposer:
            proposer.settled(experiment.number)
        return replace(experiment, repairs=tuple(self.repairs), usage=self._desk.usage, notes=self._desk.notes)

    def _advance(self) -> tuple[Experiment | None, Crash | None]:
        """Ask until something can be committed: that, or why the last proposal could not be; neither where there is
        none."""
        while True:
            self._tree.reset(self._base)
            try:
                proposal = self._next()
                if proposal is None:
                    return None, self._pending.crash if self._pending else None
                self._proposal = proposal
                self._attempts.running[self._context.number] = proposal.description
                return self._commit(proposal), None
            except Refused as error:
                crash = Crash(error.crash, str(error))
                self._proposal, self._owed = error.proposal, None
                self._failure = Failure(Stage.PROPOSAL, crash, near_duplicate=isinstance(error, NearDuplicate))
                if self._pending is not None:  # it had an answer, if none that can be used
                    self.repairs.append(self._pending)
                    self._pending = None
                if self._sent_back >= self._settings.repairs:
                    return None, crash
                self._sent_back += 1
                self._pending = Repair(Stage.PROPOSAL, crash)

    def _next(self) -> Proposal | None:
        """What an earlier session owes, else what the user's hook proposes, else the proposer."""
        if self._owed is not None:
            return self._once_more(self._owed)
        first = self._failure is None
        proposal = None
        if first or not self._by_proposer:
            proposal = self._attempts.hooks.propose(self._context, str(self._failure or ""))
            self._by_proposer = proposal is None
        if proposal is None:
            proposal = self._attempts.ask(self._question)
        if proposal is None:
            return None
        if self._pending is not None:
            self.repairs.append(self._pending)
            self._pending = None
        if first:
            proposal = replace(proposal, repeats=proposal.repeats or self._attempts.repeated(proposal))
        else:  # a repaired candidate answers for the one that it came from
            proposal = replace(proposal, repeats=self._proposal.repeats)
        return self._described(proposal)

    def _question(self, proposer: Proposer) -> Proposal | None:
        if self._failure is None:
            # Another lane may have had its turn since: its experiment is under way now, or kept.
            self._base, self._context = self._look()
            self._tree.reset(self._base)
            if proposer.listens and asks_for_bolder(self._context.records):
                count = stale(self._context.records)
                self._desk.say(f"{count} experiments without a keep: the proposer is asked for a bolder change")
            return proposer.propose(self._context)
        return proposer.repair(self._context, self._proposal, self._failure)

    def _described(self, proposal: Proposal) -> Proposal:
        """With the session's prefix, on one line."""
        prefix = self._settings.description
        given = proposal.description
        said = one_line(given if prefix and given.startswith(prefix) else f"{prefix} {given}")
        return replace(proposal, description=said or f"experiment {self._context.number:04d}")

    def _once_more(self, owed: Experiment) -> Proposal:
        """The change of an earlier candidate, brought to the branch's head."""
        proposal = replace(owed.proposal, repeats=owed.commit)
        try:
            self._tree.bring(owed.commit)
        except GitError as error:
            raise Refused(f"it does not apply to {self._base[:7]} ({error})", proposal) from None
        return self._described(proposal)

    def _commit(self, proposal: Proposal) -> Experiment:
        """Guard the edit and commit it on top of the base."""
        attempts, base, tree = self._attempts, self._base, self._tree
        frozen = (*self._settings.frozen, self._settings.experiments, "program.md")
        root = attempts.from_top(["."])[0]
        guard.check_changes(
            proposal, tree.changes(base), attempts.from_top(self._settings.editable), attempts.from_top(frozen), root
        )
        before, after = tree.files(base, attempts.is_editable), tree.files(tree.staged(), attempts.is_editable)
        guard.check_texts(proposal, after, before)
        guard.check_effect(proposal, before, after)
        if reason := attempts.hooks.guard(self._context, proposal):
            raise Refused(reason, proposal)
        program = fingerprint.digest(after)
        if program in self._failed:
            raise Refused("it is the program that has just failed", proposal)
        guard.check_new(proposal, program, attempts.rivals(program))
        changes = self._novel(proposal, before, after)
        commit, _ = tree.commit(base, f"{proposal.description}\n\n{proposal.hypothesis}".strip())
        added, removed = self._lines(commit)
        comparable = not distorts(self._changed_lines(commit))
        attempt = replace(
            attempts.experiment(self._context.number, proposal, commit, base, tree), program=program,
            constants=changes, lines_added=added, lines_removed=removed,
            simpler=fingerprint.size(after) <= (1 - _SIMPLER) * fingerprint.size(before), comparable=comparable,
        )  # fmt: skip
        with attempts.lock:
            guard.check_new(proposal, program, attempts.rivals(program))
            attempts.in_flight[attempt.number] = attempt
            attempts.desks[attempt.number] = self._desk
        return attempt

    def _novel(
        self, proposal: Proposal, before: Mapping[str, bytes], after: Mapping[str, bytes]
    ) -> dict[str, float | int | bool]:
        """The constants that it sets, where it does nothing else.

        Raises:
            Refused: It is nearly what was tried, which its proposer has not been told.
        """
        changes = near_duplicates.changed_constants(before, after)
        if self._listens and not self._told:
            self._told = near_duplicates.like(proposal.description, changes, self._context.records)
            if self._told:
                raise NearDuplicate(near_duplicates.told(self._told), proposal)
        return changes

    @property
    def _listens(self) -> bool:
        """Whether whoever proposed can be told something, and asked once more."""
        proposer = self._attempts.proposer
        asked = self._by_proposer and self._sent_back < self._settings.repairs
        return asked and proposer is not None and proposer.listens

    def _lines(self, commit: str) -> tuple[int, int]:
        """How many lines were added and removed; none of a file that is no text."""
        added = removed = 0
        for row in self._tree.git("diff", "--numstat", "--no-renames", self._base, commit).splitlines():
            with contextlib.suppress(ValueError):
                more, less, _ = row.split("\t", 2)
                added, removed = added + int(more), removed + int(less)
        return added, removed

    def _changed_lines(self, commit: str) -> list[str]:
        """The lines that were added or removed."""
        patch = self._tree.git("diff", "--no-renames", "--no-ext-diff", "--unified=0", self._base, commit)
        return [row[1:] for row in patch.splitlines() if row[:1] in ("+", "-") and row[:3] not in ("+++", "---")]
