"""What is tried next in a session: the baseline, what earlier sessions owe, then whatever the proposer thinks of.

Called from lane threads. Knows proposers and what all experiments have in common; nothing of runs or verdicts.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable
from dataclasses import replace
from typing import Protocol

from pytest_autoresearch.campaign.proposer_session import SessionDesk
from pytest_autoresearch.core.experiment import Experiment, Proposal, Usage
from pytest_autoresearch.keeprule import replicates
from pytest_autoresearch.keeprule.noise import NO_PRIOR, Prior
from pytest_autoresearch.ledger.ledger import Ledger
from pytest_autoresearch.ledger.ratchet import Ratchet
from pytest_autoresearch.ledger.worktree import Worktree
from pytest_autoresearch.proposers.base import Context, Proposer, Terms
from pytest_autoresearch.settings import Settings
from pytest_autoresearch.source import fingerprint, guard


class Hooks(Protocol):
    """The user's hooks; each call arrives on the main thread, whoever asks."""

    def propose(self, context: Context, failure: str) -> Proposal | None: ...

    def guard(self, context: Context, proposal: Proposal) -> str | None: ...


class Attempts:
    """What is tried next, in this session.

    Args:
        like: What all experiments of the session have in common.
        terms: What a proposer is told of that.
        prior: What is believed of the noise.

    Attributes:
        hooks: The user's.
        running: The descriptions of the experiments under way, by number.
        in_flight: The experiments that have a commit and no verdict yet, by number; `desks` where their proposals
            were made.
        usage: What the session's proposals have used so far, whatever became of them.
        lock: Held where a commit is compared with those in flight: two lanes may have the same idea.
    """

    def __init__(
        self,
        settings: Settings,
        ratchet: Ratchet,
        ledger: Ledger,
        like: Experiment,
        terms: Terms,
        hooks: Hooks,
        make_proposer: Callable[[], Proposer],
        prior: Prior = NO_PRIOR,
    ) -> None:
        self._prior = prior
        self.hooks = hooks
        self.running: dict[int, str] = {}
        self.in_flight: dict[int, Experiment] = {}
        self.desks: dict[int, SessionDesk] = {}
        self.usage = Usage()
        self.lock = threading.Lock()
        self._settings = settings
        self._ratchet = ratchet
        self._ledger = ledger
        self._like = like
        self._terms = terms
        self._make_proposer = make_proposer
        self._made: Proposer | None = None
        self._proposing = threading.Lock()
        self._owed: list[Experiment] = []
        self._known: list[Experiment] = []

    def owe(self, candidates: Iterable[Experiment]) -> None:
        """These come first: they were committed before and have no verdict that counts."""
        with self.lock:
            self._owed += candidates

    def owed(self) -> Experiment | None:
        """The first of them, which is owed no longer."""
        with self.lock:
            return self._owed.pop(0) if self._owed else None

    def know(self, candidates: Iterable[Experiment]) -> None:
        """These are owed a verdict too, but it is the checkout's edit that is tried; it may be one of them."""
        self._known += candidates

    def repeated(self, proposal: Proposal) -> str:
        """The commit of the known candidate that the proposal is again; empty where it is none."""
        same = (one.commit for one in self._known if one.proposal.source and one.proposal.source == proposal.source)
        return next(same, "")

    def forget(self, number: int) -> None:
        """The experiment is no longer under way."""
        self.in_flight.pop(number, None)
        self.desks.pop(number, None)
        self.running.pop(number, None)

    def unjudged(self) -> list[Experiment]:
        """Those in flight, with what their proposals have used."""
        found = [(one, self.desks.get(one.number)) for one in list(self.in_flight.values())]
        return [replace(one, usage=desk.usage, notes=desk.notes) if desk else one for one, desk in found]

    def compared(self) -> set[str]:
        """The commits that a candidate under way or the next one is compared with, and those candidates themselves."""
        best = self._ledger.incumbent
        heads = {best.commit, best.base} if best else set()
        return heads | {experiment.commit for experiment in list(self.in_flight.values())}

    def ask(self, question: Callable[[Proposer], Proposal | None]) -> Proposal | None:
        """Put a question to the session's proposer, which answers one lane at a time."""
        with self._proposing:
            if self._made is None:
                self._made = self._make_proposer()
            return question(self._made)

    @property
    def proposer(self) -> Proposer | None:
        """Who proposes in this session; None while nobody was asked."""
        return self._made

    def spent(self, usage: Usage) -> None:
        """A proposal has used this much."""
        with self.lock:
            self.usage += usage

    def baseline(self, number: int, tree: Worktree) -> Experiment:
        """The commit that the user has checked out, as it is."""
        start = self._ratchet.start
        tree.reset(start)
        self.running[number] = "baseline"
        first = self.experiment(number, Proposal("baseline"), start, start, tree)
        return replace(first, program=fingerprint.digest(tree.files(start, self.is_editable)))

    def context(self, number: int, tree: Worktree, program: str, desk: SessionDesk) -> Context:
        """What a proposer is shown now."""
        return Context(
            number=number,
            folder=tree.folder,
            editable=self._settings.editable,
            program=program,
            records=tuple(self._ledger.records),
            running=tuple(self.running.items()),
            root=self._settings.root,
            experiments=self._settings.experiments_folder,
            terms=self._terms,
            notes=desk.known_notes,
            desk=desk,
            resolution=replicates.resolution(self._ledger.baseline, self._prior),
        )

    def experiment(self, number: int, proposal: Proposal, commit: str, base: str, tree: Worktree) -> Experiment:
        """An experiment of this session."""
        hash_of_tree = tree.git("rev-parse", f"{commit}^{{tree}}")
        return replace(self._like, number=number, proposal=proposal, commit=commit, base=base, tree=hash_of_tree)

    def rivals(self, program: str) -> list[Experiment]:
        """The experiments that tried this program, or any that is under way."""
        return [*self._ledger.tried(program), *self.in_flight.values()]

    def is_editable(self, path: str) -> bool:
        """Whether a proposal may change the path, which is relative to the repository's top."""
        return guard.is_editable(path, self.from_top(self._settings.editable))

    def from_top(self, paths: Iterable[str]) -> tuple[str, ...]:
        """The paths, relative to the repository's top."""
        return tuple((self._ratchet.prefix / path).as_posix() for path in paths)
