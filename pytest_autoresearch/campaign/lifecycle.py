"""The life of an experiment, step by step, up to the hand-over to the main thread.

Runs on a lane's thread. Knows nothing of test items, verdicts or reports.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Container, Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import partial

from pytest_autoresearch.campaign import candidate
from pytest_autoresearch.campaign.batches import Batches
from pytest_autoresearch.campaign.borrowed_lanes import BorrowedLanes
from pytest_autoresearch.campaign.common import Common
from pytest_autoresearch.campaign.dialogue import Dialogue
from pytest_autoresearch.campaign.free_lanes import FreeLanes
from pytest_autoresearch.campaign.in_flight import InFlight
from pytest_autoresearch.campaign.proposer_session import ExperimentSession
from pytest_autoresearch.campaign.work_queue import WorkQueue
from pytest_autoresearch.core.errors import GitError, ProposerError, Refused, Spent
from pytest_autoresearch.core.experiment import BASELINE, Experiment, Proposal
from pytest_autoresearch.core.failure import Failure, Stage
from pytest_autoresearch.core.run import Crash, CrashClass, Limits, Progress, Role
from pytest_autoresearch.ledger.git import PATCH
from pytest_autoresearch.ledger.worktree import Worktree
from pytest_autoresearch.measure.runs import RunMaker, Watcher
from pytest_autoresearch.proposers.base import Context

# These crashes go back to nobody: a proposer that is told how a faked metric was found learns how to hide it.
# Nor is a lost node a fault that could be repaired.
_FINAL = (
    CrashClass.REJECTED, CrashClass.UNWATCHED, CrashClass.OVER_DISK, CrashClass.OVER_PROCESSES, CrashClass.LOST,
)  # fmt: skip
_CHEAP = 0.1  # a run that failed after more than this share of its budget is repaired once


class Lifecycle:
    """Conducts experiments, each in a worktree of its own."""

    def __init__(
        self, common: Common, queue: WorkQueue, runs: RunMaker, watcher: Watcher, free: FreeLanes,
        batches: Batches,
    ) -> None:  # fmt: skip
        self._free = free
        self._batches = batches
        # The places of experiments come first: one for each lane, and those for look-ahead.
        places = max(free.lanes + common.settings.ahead, batches.size)
        self._others = BorrowedLanes(free, lambda lane: common.ratchet.worktree(places + lane))
        self._common = common
        self._queue = queue
        self._runs = runs
        self._watcher = watcher
        self._artifacts = common.settings.campaign_artifacts(common.ratchet.tag)
        self._charter = ""
        self._trees: dict[int, Worktree] = {}
        self._measured: dict[int, tuple[Dialogue, Experiment]] = {}  # until the verdict, by number

    def conduct(self, flight: InFlight, limits: Limits) -> Experiment | None:
        """One experiment in ten steps. The first seven are here, on the lane's thread.

        Conducted again, an experiment that was measured is merged into the present head and measured there.

        Returns:
            The experiment with its runs, or with the reason why it was refused. The main thread takes it from there:
            8. judge (the item's tests), 9. record (git's transaction), 10. report (see `session.loop`). None if there
            is nothing left to propose.

        Raises:
            Stopped: The session is ending.
            AutoresearchError: Git failed, which says nothing about any candidate.
        """
        try:
            return self._conduct(flight, limits)
        finally:
            self._queue.passes(flight.number)

    def _conduct(self, flight: InFlight, limits: Limits) -> Experiment | None:
        tree, program = self._tree(flight.place), self._program()
        common = replace(self._common, like=replace(self._common.like, limits=limits, program_hash=_hash(program)))
        if flight.number == BASELINE:
            if not self._rehearse(common, flight, tree, program):
                return None
            flight.lane = self._free.take(flight.number)
            return flight.account(self._measure(flight, candidate.baseline(common, flight, tree), tree))
        dialogue, attempt = self._measured.pop(flight.number, (None, None))
        if dialogue is None:
            with _timed(flight, "propose"):
                dialogue = self._dialogue(common, flight, tree, program)
        earlier = attempt.runs_of_own_commit if attempt else ()
        result: Experiment | None = None
        goes_on = True
        while goes_on:
            try:
                if attempt is None:
                    flight.progress = Progress("proposing")
                    with _timed(flight, "propose"):
                        try:
                            proposal = dialogue.propose()  # 1. propose
                        finally:
                            self._queue.passes(flight.number)
                        if proposal is None:
                            break
                        edit = candidate.check(common, dialogue, proposal, tree)  # 2. check
                        attempt = candidate.commit(common, flight, proposal, edit, dialogue.base, tree)  # 3. commit
                        self._save(flight, attempt)
                    if self._batches.takes(flight):
                        on_head = partial(self._on_head, common, flight, dialogue, attempt, tree)
                        result = self._batches.measure(flight, on_head, tree)
                        if result is not None:
                            attempt = None
                            goes_on = self._send_back(result, dialogue, flight)
                            continue
                if flight.lane is None:  # it gave its own back, if it waited for the verdict of another experiment
                    flight.progress = Progress("waiting for a lane")
                    with _timed(flight, "wait"):
                        flight.lane = self._free.take(flight.number)
                merged = self._on_head(common, flight, dialogue, attempt, tree)
            except Refused as error:
                self._leave_lane(flight)
                failure = error.failure
                if attempt is not None:  # it was committed, so its commit is recorded
                    result, attempt = replace(attempt, refusal=failure.crash), None
                elif result is None or result.refusal is not None:
                    result = self._refused(common, flight, dialogue, error.proposal, failure.crash, tree)
                goes_on = dialogue.send_back(failure)
                continue
            except (Spent, ProposerError) as error:
                self._watcher.end(str(error), failed=isinstance(error, ProposerError))
                result = result if result is not None and (result.refusal is None or result.runs) else None
                break
            self._keep_failed(result, flight, tree)
            # 4. preflight, 5. run, 6. score, 7. confirm
            result, attempt = self._measure(flight, replace(merged, runs=earlier), tree), None
            goes_on = self._send_back(result, dialogue, flight)
            if goes_on:
                self._leave_lane(flight)
        if result is None:
            self._watcher.end("there is nothing left to propose")
            return None
        self._measured[flight.number] = (dialogue, result)
        return flight.account(result)

    def _rehearse(self, common: Common, flight: InFlight, tree: Worktree, program: str) -> bool:
        """Let a proposer that may not work here make its first proposal; false if the session ends with it."""
        if common.hooks.proposes or not self._queue.rehearses:
            return True
        flight.progress = Progress("proposing")
        tree.reset(common.ratchet.start)
        session = self._session(common, flight, tree)
        try:
            with _timed(flight, "propose"):
                context = self._context(common, flight, tree, program, session)
                self._queue.rehearse(replace(context, number=flight.number + 1))
        except (Spent, ProposerError) as error:
            self._watcher.end(str(error), failed=isinstance(error, ProposerError))
            return False
        return True

    def _measure(self, flight: InFlight, attempt: Experiment, tree: Worktree) -> Experiment:
        """All runs that the keep rule asks for; each one goes through preflight, training and scoring."""
        assert flight.lane is not None
        with _timed(flight, "run"):
            return self._runs.measure(attempt, tree, flight.lane, self._others)

    def _on_head(
        self, common: Common, flight: InFlight, dialogue: Dialogue, attempt: Experiment, tree: Worktree
    ) -> Experiment:
        """The candidate on the branch head. It is merged if the head moved since it was proposed.

        Raises:
            Refused: It conflicts with what was kept meanwhile, or is no new program there.
        """
        made_on, proposal = dialogue.base, attempt.proposal
        if common.ledger.base() == made_on:
            return attempt
        dialogue.look_again()
        dialogue.warned = True  # it was proposed before what it may be like now
        head = dialogue.base
        flight.memory = None  # of files as they were before: writing them again would undo what was kept
        flight.candidate = None  # it is not its own rival
        tree.reset(head)
        try:
            tree.bring(attempt.commit)
        except GitError as error:
            when = "while it ran" if attempt.runs else "before it could run"
            why = f"the branch moved to {head[:7]} {when}, and it conflicts: {error}"
            raise Refused(why, proposal, error.crash) from None
        edit = candidate.check(common, dialogue, proposal, tree)
        merged = candidate.commit(common, flight, proposal, edit, head, tree)
        flight.made_on = flight.made_on or made_on
        self._save(flight, merged)
        return merged

    def _save(self, flight: InFlight, attempt: Experiment) -> None:
        """Let the next session measure the candidate if this process is killed: its proposal took time or money."""
        if self._queue.listens or self._batches.size:
            self._common.ratchet.leave_waiting(flight.account(attempt), instead_of=flight.waiting)
            flight.waiting = attempt.commit

    def _leave_lane(self, flight: InFlight) -> None:
        """Let another experiment have the lane while this one is with its proposer."""
        flight.made_on = ""
        self._common.flights.right_of_way.ends(flight.number)
        if flight.lane is not None:
            self._free.give(flight.lane)
            flight.lane = None

    def forget(self, number: int) -> None:
        """The experiment has its verdict."""
        self._measured.pop(number, None)

    def release(self, held: Container[int]) -> None:
        """Let other sessions have all worktrees but the held ones."""
        for place, tree in list(self._trees.items()):
            if place not in held:
                tree.release()
        self._others.release()

    # --------------------------------------------------------------------------------------------------- failures

    def _refused(
        self, common: Common, flight: InFlight, dialogue: Dialogue, proposal: Proposal, crash: Crash, tree: Worktree
    ) -> Experiment:
        """The experiment of a refused proposal: nothing was committed, so its commit is the base."""
        tree.reset(dialogue.base)
        described = dialogue.refused(proposal)
        refused = candidate.attempt(common, flight, described, dialogue.base, dialogue.base, tree)
        return replace(refused, refusal=crash)

    def _send_back(self, experiment: Experiment, dialogue: Dialogue, flight: InFlight) -> bool:
        """Whether the experiment crashed and its proposer makes another one of it."""
        crash, run = experiment.crash, experiment.last_run
        if crash is None or run is None or crash.kind in _FINAL or run.role is Role.CONFIRM:
            return False
        stage = Stage.PREFLIGHT if self._common.harness.score and run.training_seconds == 0 else Stage.RUN
        costly = stage is Stage.RUN and run.training_seconds > _CHEAP * experiment.budget_seconds
        if costly and any(repair.stage is Stage.RUN for repair in flight.repairs):
            return False
        return dialogue.send_back(Failure(stage, crash, run.log), experiment)

    def _keep_failed(self, failed: Experiment | None, flight: InFlight, tree: Worktree) -> None:
        """Keep the change and the logs of a failed candidate for people, before its repair takes their place."""
        if failed is None or failed.refusal is not None:
            return
        folder, count = self._artifacts.make_experiment(failed.number), len(flight.repairs)
        (folder / f"failed-{count}.patch").write_text(_diff(failed, tree), "utf-8", "surrogateescape")
        for log in folder.glob("train*.log"):
            log.replace(folder / log.name.replace("train", f"failed-{count}", 1))

    # -------------------------------------------------------------------------------------------------- proposing

    def _session(self, common: Common, flight: InFlight, tree: Worktree) -> ExperimentSession:
        self._artifacts.make()
        return ExperimentSession(
            flight, common.ledger.records, lambda record: _diff(record, tree), self._artifacts, self._queue.spend,
            lambda text: self._say(flight, text),
        )  # fmt: skip

    def _say(self, flight: InFlight, text: str) -> None:
        self._watcher.say(f"{flight.number:04d}: {text}")

    def _dialogue(self, common: Common, flight: InFlight, tree: Worktree, program: str) -> Dialogue:
        session = self._session(common, flight, tree)

        def look() -> tuple[str, Context]:
            return common.ledger.base(), self._context(common, flight, tree, program, session)

        return Dialogue(common, flight, self._queue, tree, look, lambda text: self._say(flight, text))

    def _context(
        self, common: Common, flight: InFlight, tree: Worktree, program: str, session: ExperimentSession
    ) -> Context:
        """What a proposer is shown now."""
        return common.context(flight.number, tree.folder, program, session, self._free.lanes, session.known_notes)

    def _program(self) -> str:
        """The researcher's page as it is now, or as it was before if it cannot be read at this moment."""
        try:
            text = (self._common.settings.root / "program.md").read_text("utf-8", "replace")
        except OSError as error:
            self._watcher.say(f"program.md cannot be read ({error}): the session goes on with the text that it had")
            text = ""
        if text.strip():
            self._charter = text
        return self._charter

    def _tree(self, place: int) -> Worktree:
        if place not in self._trees:
            self._trees[place] = self._common.ratchet.worktree(place)
        return self._trees[place]


@contextmanager
def _timed(flight: InFlight, stage: str) -> Iterator[None]:
    began = time.monotonic()
    try:
        yield
    finally:
        flight.timings[stage] = flight.timings.get(stage, 0.0) + time.monotonic() - began


def _hash(program: str) -> str:
    return hashlib.sha256(program.encode()).hexdigest()[:16]


def _diff(experiment: Experiment, tree: Worktree) -> str:
    """The experiment's change as a patch; empty if nothing was committed."""
    if experiment.commit == experiment.base:
        return ""
    return tree.git.ask("diff", *PATCH, experiment.base, experiment.commit) or ""
