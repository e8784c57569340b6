"""Where experiments come from: from a proposer's edit to a guarded commit that can be trained.

Called from lane threads. Knows proposers, the guard and a lane's tree; nothing of runs or verdicts.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable
from dataclasses import replace
from typing import Protocol

from pytest_autoresearch import guard, programs
from pytest_autoresearch.errors import GitError, Refused
from pytest_autoresearch.experiment import Crash, Experiment, Proposal
from pytest_autoresearch.ledger import Ledger
from pytest_autoresearch.proposers.base import Context, Proposer
from pytest_autoresearch.ratchet import Ratchet
from pytest_autoresearch.records import one_line
from pytest_autoresearch.settings import Settings
from pytest_autoresearch.worktree import Worktree

REPAIRS = 3  # how often a refused proposal goes back to its proposer


class Hooks(Protocol):
    """The user's hooks; each call arrives on the main thread, whoever asks."""

    def propose(self, context: Context, failure: str) -> Proposal | None: ...

    def guard(self, context: Context, proposal: Proposal) -> str | None: ...


class Attempts:
    """What is tried next, in this session.

    Args:
        like: What all experiments of the session have in common.

    Attributes:
        running: The descriptions of the experiments under way, by number.
        in_flight: The experiments that have a commit and no verdict yet, by number.
    """

    def __init__(
        self,
        settings: Settings,
        ratchet: Ratchet,
        ledger: Ledger,
        like: Experiment,
        hooks: Hooks,
        make_proposer: Callable[[], Proposer],
    ) -> None:
        self.running: dict[int, str] = {}
        self.in_flight: dict[int, Experiment] = {}
        self._settings = settings
        self._ratchet = ratchet
        self._ledger = ledger
        self._like = like
        self._hooks = hooks
        self._make_proposer = make_proposer
        self._proposer: Proposer | None = None
        self._proposing = threading.Lock()
        self._lock = threading.Lock()
        self._owed: list[Experiment] = []

    def owe(self, candidates: Iterable[Experiment]) -> None:
        """These come first: they were committed before and have no verdict that counts."""
        with self._lock:
            self._owed += candidates

    def forget(self, number: int) -> None:
        """The experiment is no longer under way."""
        self.in_flight.pop(number, None)
        self.running.pop(number, None)

    def compared(self) -> set[str]:
        """The commits that a candidate under way or the next one is compared with, and those candidates themselves."""
        best = self._ledger.incumbent
        heads = {best.commit, best.base} if best else set()
        return heads | {experiment.commit for experiment in list(self.in_flight.values())}

    def baseline(self, number: int, tree: Worktree) -> Experiment:
        """The commit that the user has checked out, as it is."""
        start = self._ratchet.start
        tree.reset(start)
        self.running[number] = "baseline"
        first = self._experiment(number, Proposal("baseline"), start, start, _tree_of(start, tree))
        return replace(first, program=programs.digest(tree.files(start, self._is_editable)))

    def next(self, number: int, tree: Worktree, program: str) -> Experiment | None:
        """A guarded, committed proposal; or a refused one, whose commit is the base; None when there are no more.

        Raises:
            AutoresearchError: Git or a proposer failed, which says nothing of any candidate.
        """
        base = self._ledger.base()
        context = self._context(number, tree, program)
        with self._lock:
            owed = self._owed.pop(0) if self._owed else None
        refusal: Refused | None = None
        for _ in range(1 + REPAIRS):
            tree.reset(base)
            try:
                proposal = self._again(owed, base, tree) if owed else self._propose(context, refusal)
                if proposal is None:
                    break
                self.running[number] = proposal.description
                return self._commit(context, proposal, base, tree)
            except Refused as error:
                refusal, owed = error, None
        if refusal is None:
            return None
        tree.reset(base)
        proposal = self._described(refusal.proposal, number)
        refused = self._experiment(number, proposal, base, base, _tree_of(base, tree))
        return replace(refused, refusal=Crash(refusal.crash, str(refusal)))

    def _context(self, number: int, tree: Worktree, program: str) -> Context:
        return Context(
            number=number,
            folder=tree.folder,
            editable=self._settings.editable,
            program=program,
            records=tuple(self._ledger.records),
            running=tuple(self.running.items()),
            root=self._settings.root,
            experiments=self._settings.experiments_folder,
        )

    def _propose(self, context: Context, refusal: Refused | None) -> Proposal | None:
        """Ask the user's hook, then the proposer."""
        proposal = self._hooks.propose(context, str(refusal or ""))
        if proposal is None:
            with self._proposing:
                if self._proposer is None:
                    self._proposer = self._make_proposer()
                if refusal is None:
                    proposal = self._proposer.propose(context)
                else:
                    proposal = self._proposer.repair(context, refusal.proposal, str(refusal))
        if proposal is None:
            return None
        if refusal is not None:  # a repaired candidate answers for the one that it came from
            proposal = replace(proposal, repeats=refusal.proposal.repeats)
        return self._described(proposal, context.number)

    def _described(self, proposal: Proposal, number: int) -> Proposal:
        """With the session's prefix, on one line."""
        said = one_line(f"{self._settings.description} {proposal.description}") or f"experiment {number:04d}"
        return replace(proposal, description=said)

    def _again(self, owed: Experiment, base: str, tree: Worktree) -> Proposal:
        """The change of an earlier candidate, brought to the branch's head."""
        proposal = replace(owed.proposal, repeats=owed.commit)
        try:
            tree.bring(owed.commit)
        except GitError as error:
            raise Refused(f"it does not apply to {base[:7]} ({error})", proposal) from None
        return proposal

    def _commit(self, context: Context, proposal: Proposal, base: str, tree: Worktree) -> Experiment:
        """Guard the edit and commit it on top of the base."""
        frozen = (*self._settings.frozen, self._settings.experiments, "program.md")
        guard.check_changes(
            proposal, tree.changes(base), self._from_top(self._settings.editable), self._from_top(frozen),
            self._ratchet.prefix.as_posix(),
        )  # fmt: skip
        before, after = tree.files(base, self._is_editable), tree.files(tree.staged(), self._is_editable)
        guard.check_texts(proposal, after, before)
        guard.check_effect(proposal, before, after)
        if reason := self._hooks.guard(context, proposal):
            raise Refused(reason, proposal)
        body = f"{proposal.description}\n\n{proposal.hypothesis}".strip()
        commit, tree_hash = tree.commit(base, body)
        program = programs.digest(after)
        attempt = replace(self._experiment(context.number, proposal, commit, base, tree_hash), program=program)
        with self._lock:  # two lanes may have had the same idea
            guard.check_new(proposal, program, [*self._ledger.tried(program), *self.in_flight.values()])
            self.in_flight[attempt.number] = attempt
        return attempt

    def _from_top(self, paths: Iterable[str]) -> tuple[str, ...]:
        """The paths, relative to the repository's top."""
        return tuple((self._ratchet.prefix / path).as_posix() for path in paths)

    def _is_editable(self, path: str) -> bool:
        return guard.is_editable(path, self._from_top(self._settings.editable))

    def _experiment(self, number: int, proposal: Proposal, commit: str, base: str, tree_hash: str) -> Experiment:
        return replace(self._like, number=number, proposal=proposal, commit=commit, base=base, tree=tree_hash)


def _tree_of(commit: str, tree: Worktree) -> str:
    return tree.git("rev-parse", f"{commit}^{{tree}}")
