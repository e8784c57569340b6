"""Gathers candidates into batches, and has each batch measured by all lanes; the campaign's side of `measure.batch`.

A batch begins when every experiment under way has a candidate that waits for it, so its size is that of all that may be
under way. Its gains make one more candidate, the combination, which is measured and judged as any other.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace

from pytest_autoresearch.campaign.free_lanes import FreeLanes
from pytest_autoresearch.campaign.in_flight import Flights, InFlight
from pytest_autoresearch.core.errors import MergeConflict, Stopped
from pytest_autoresearch.core.experiment import BASELINE, Experiment, Proposal, Reason
from pytest_autoresearch.core.run import Progress, Role
from pytest_autoresearch.keeprule.blocks import Blocks
from pytest_autoresearch.keeprule.designs import LEAST
from pytest_autoresearch.keeprule.effects import Effect
from pytest_autoresearch.keeprule.noise import Prior
from pytest_autoresearch.keeprule.replicates import observations
from pytest_autoresearch.ledger.ledger import Ledger
from pytest_autoresearch.ledger.ratchet import Ratchet
from pytest_autoresearch.ledger.worktree import Worktree
from pytest_autoresearch.measure.batch import Batch, Work
from pytest_autoresearch.measure.batch_file import BatchFile
from pytest_autoresearch.measure.confirm import seen
from pytest_autoresearch.measure.runs import RunMaker

_SOURCE = "batch:"  # before the name of the batch whose combination a candidate is


class Batches:
    """The candidates that wait for a batch, and the batch that is measured now.

    Args:
        size: The most proposals of a batch; 0 for no batches.
    """

    def __init__(
        self, size: int, ratchet: Ratchet, ledger: Ledger, flights: Flights, runs: RunMaker, free: FreeLanes,
        prior: Prior,
    ) -> None:  # fmt: skip
        self.size = size
        self._ratchet = ratchet
        self._ledger = ledger
        self._flights = flights
        self._runs = runs
        self._free = free
        self._prior = prior
        self._changed = threading.Condition()
        self._joined: set[int] = set()
        self._all_started = False
        self._closed = False
        self._gathered: dict[int, _Gathered] = {}  # the batch of each candidate that has one
        self._unjudged: set[int] = set()
        self._given: set[str] = set()  # the batches whose combination is owed or tried
        self._file = BatchFile(ratchet.home / "batches" / f"{ratchet.tag}.json")

    # ------------------------------------------------------------------------------------------- on the main thread

    def started(self) -> None:
        """Every experiment that may be under way now is under way."""
        with self._changed:
            self._all_started = True
            self._gather()

    def ended(self, number: int) -> None:
        """An experiment is over, so others may start."""
        with self._changed:
            self._all_started = False
            self._unjudged.discard(number)

    @property
    def is_measured(self) -> bool:
        """Whether a batch is under way. No experiment should start before its verdicts, which the next ones know."""
        with self._changed:
            return bool(self._unjudged)

    def close(self) -> None:
        """Let nobody wait any longer."""
        with self._changed:
            self._closed = True
            for gathered in self._gathered.values():
                gathered.stop(Stopped("the session is ending"))
            self._changed.notify_all()

    def combinations(self, records: Iterable[Experiment], owed: Iterable[Experiment] = ()) -> list[Experiment]:
        """The candidates with all gains of a batch, of each batch that is recorded whole; each is given once.

        Args:
            owed: Candidates that are owed already.
        """
        known = list(records)
        batches: dict[str, list[Experiment]] = {}
        for one in known:
            if one.share is not None:
                batches.setdefault(one.share.batch, []).append(one)
        self._given |= {one.proposal.source.removeprefix(_SOURCE) for one in (*known, *owed)}
        found = []
        for name, members in batches.items():
            joins = [one for one in members if one.verdict is not None and one.verdict.reason == Reason.JOINS]
            is_whole = all(one.share is not None and one.share.size <= len(members) for one in members)
            if is_whole and joins and name not in self._given:
                self._given.add(name)
                found.append(self._combined(name, joins))
        return found

    def _combined(self, name: str, joins: list[Experiment]) -> Experiment:
        """One candidate of several, on the head that they were measured on."""
        joins.sort(key=lambda one: -one.gain)
        first, source = joins[0], f"{_SOURCE}{name}"
        commit, proposal = first.commit, replace(first.proposal, source=source)
        if len(joins) > 1:
            said = _described(joins)
            commit = self._ratchet.combined(first.base, [one.commit for one in joins], said)
            proposal = Proposal(said, proposer="batch", source=source)
        return replace(first, commit=commit, proposal=proposal, runs=(), share=None, verdict=None)

    # ---------------------------------------------------------------------------------------- on an experiment's thread

    def takes(self, flight: InFlight) -> bool:
        """Whether the experiment's candidate is measured with others."""
        combined = flight.proposal is not None and flight.proposal.source.startswith(_SOURCE)
        return bool(self.size) and flight.number != BASELINE and not combined

    def measure(self, flight: InFlight, on_head: Callable[[], Experiment], tree: Worktree) -> Experiment | None:
        """The candidate with its share of a batch's runs; None if it has to be measured alone.

        Args:
            on_head: Gives the candidate on the present branch head.
            tree: The worktree in which this thread makes its part of the runs.

        Raises:
            Refused: What `on_head` raises; the others go on.
            Stopped: The session is ending.
        """
        while True:  # again, if it conflicts with another proposal of the batch
            flight.progress = Progress("waiting for the batch")
            gathered = self._wait_for_batch(flight.number)
            is_in = False
            try:
                batch = self._begun(gathered, flight.number, on_head)
                if batch is None:
                    return None
                is_in = flight.number in {one.number for one in batch.members}
                if is_in:
                    self._work(flight, batch, tree)
                    return batch.result(flight.number)
            finally:
                with self._changed:
                    self._gathered.pop(flight.number, None)
                if not is_in:
                    self.ended(flight.number)

    def _begun(self, gathered: _Gathered, number: int, on_head: Callable[[], Experiment]) -> Batch | None:
        """The batch of those that were gathered, once each of them is on the branch head."""
        candidate = None
        try:
            candidate = on_head()
        finally:  # the others do not wait for one that was refused
            gathered.answer(number, candidate)
        return gathered.made(self._make)

    def _wait_for_batch(self, number: int) -> _Gathered:
        with self._changed:
            self._joined.add(number)
            self._gather()
            self._changed.wait_for(lambda: self._closed or number in self._gathered)
            if self._closed:
                raise Stopped("the session is ending")
            return self._gathered[number]

    def _gather(self) -> None:
        """Begin a batch if nobody is missing."""
        waiting = self._joined - self._gathered.keys()
        if not self._all_started or not waiting or self._flights.numbers - waiting:
            return
        gathered = _Gathered(sorted(waiting)[: self.size])
        self._gathered |= dict.fromkeys(gathered.numbers, gathered)
        self._joined -= set(gathered.numbers)
        self._unjudged |= set(gathered.numbers)
        self._changed.notify_all()

    def _make(self, candidates: Sequence[Experiment]) -> Batch | None:
        """The batch of those candidates that merge with each other; None if there are too few."""
        head = self._ledger.incumbent
        taken: list[Experiment] = []
        for one in candidates:
            if head is not None and one.base == head.commit and self._merge([*taken, one]):
                taken.append(one)
        if head is None:
            return None
        records = self._ledger.records
        noise = Blocks(observations(records), self._prior).components
        saved = self._file.load()
        if saved is not None and saved.head == head.commit:
            known = {one.program: one for one in (*records, *taken)}
            members = [known[program] for program in saved.programs if program in known]
            if len(members) == len(saved.programs) and any(one in taken for one in members):
                before = _effects(one for one in records if one not in members)
                return Batch(members, head, saved.seed, noise, before, saved.made, saved.alone)
        return Batch(taken, head, self._runs.new_seed(), noise, _effects(records)) if len(taken) >= LEAST else None

    def _save(self, batch: Batch) -> None:
        with self._changed:  # in the order of the runs
            self._file.save(batch.saved)

    def _merge(self, candidates: Sequence[Experiment]) -> bool:
        """Whether no two of them change the same line."""
        try:
            self._ratchet.combined(candidates[0].base, [one.commit for one in candidates], "together")
        except MergeConflict:
            return False
        return True

    def _work(self, flight: InFlight, batch: Batch, tree: Worktree) -> None:
        """Make runs of the batch until all are made."""
        mine = next(one for one in batch.members if one.number == flight.number)
        try:
            while batch.goes_on():
                flight.progress = Progress("waiting for a lane")
                flight.lane = lane = self._free.take(flight.number)
                try:
                    began = time.monotonic()
                    if (work := batch.take()) is not None:
                        self._run(mine, work, batch, tree, lane)
                        flight.timings["run"] = flight.timings.get("run", 0.0) + time.monotonic() - began
                finally:
                    flight.lane = None
                    self._free.give(lane)
                flight.progress = Progress("waiting for the batch")
        except BaseException as error:
            batch.fail(error)
            raise

    def _run(self, mine: Experiment, work: Work, batch: Batch, tree: Worktree, lane: int) -> None:
        members = [batch.members[at] for at in sorted(work.has)]
        alone = work.role is Role.SCREEN
        commit, owner = (members[0].commit, members[0]) if alone else (batch.head.commit, mine)
        if members and not alone:
            commit = self._ratchet.combined(commit, [one.commit for one in members], _described(members))
        below: float | None = batch.suspicious
        if alone:
            below = mine.direction.worst  # a proposal with which every run crashed is looked at in any case
        elif not members:
            below = seen(batch.head, self._ledger.records)
        runs = self._runs.together(owner, commit, batch.seed, work.role, below, work.log, tree, lane)
        batch.done(work, mine.number, runs)
        self._save(batch)


class _Gathered:
    """Candidates that begin a batch together, once each is on the branch head.

    Attributes:
        numbers: Their numbers.
    """

    def __init__(self, numbers: Sequence[int]) -> None:
        self.numbers = tuple(numbers)
        self._changed = threading.Condition()
        self._answers: dict[int, Experiment | None] = {}
        self._batch: Batch | None = None
        self._is_made = False
        self._error: BaseException | None = None

    def answer(self, number: int, candidate: Experiment | None) -> None:
        """The candidate on the branch head; None if it was refused there."""
        with self._changed:
            self._answers[number] = candidate
            self._changed.notify_all()

    def made(self, make: Callable[[Sequence[Experiment]], Batch | None]) -> Batch | None:
        """The batch, which the first thread makes that comes here after all have answered."""
        with self._changed:
            self._changed.wait_for(lambda: self._error is not None or self._answers.keys() >= set(self.numbers))
            if self._error is not None:
                raise self._error
            if not self._is_made:
                self._batch = make([one for _, one in sorted(self._answers.items()) if one is not None])
                self._is_made = True
            return self._batch

    def stop(self, error: BaseException) -> None:
        """Nobody waits any longer."""
        with self._changed:
            self._error = self._error or error
            if self._batch is not None:
                self._batch.fail(error)
            self._changed.notify_all()


def _effects(records: Iterable[Experiment]) -> list[Effect]:
    """The effects that earlier batches estimated."""
    shares = (one.share for one in records if one.share is not None)
    return [Effect(one.gain, one.error, one.degrees) for one in shares]


def _described(members: Sequence[Experiment]) -> str:
    """The descriptions of all members, in a line."""
    if len(members) == 1:
        return members[0].proposal.description
    return f"{len(members)} together: {'; '.join(one.proposal.short for one in members)}"
