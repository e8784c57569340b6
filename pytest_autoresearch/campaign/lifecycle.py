"""The life of an experiment up to its result: propose, guard, commit, preflight, run, score, and back after a crash.

Runs on a lane's thread. Knows nothing of items, verdicts or reports.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Container, Iterator
from contextlib import contextmanager
from dataclasses import replace

from pytest_autoresearch.campaign.idea import Idea
from pytest_autoresearch.campaign.proposer_session import SessionDesk
from pytest_autoresearch.campaign.work_queue import Attempts
from pytest_autoresearch.core.errors import ProposerError, Spent
from pytest_autoresearch.core.experiment import BASELINE, Experiment
from pytest_autoresearch.core.failure import Stage
from pytest_autoresearch.core.run import Crash, CrashClass, Limits, Progress, Role
from pytest_autoresearch.ledger.ledger import Ledger
from pytest_autoresearch.ledger.ratchet import Ratchet
from pytest_autoresearch.ledger.worktree import Worktree
from pytest_autoresearch.measure.harness import Harness
from pytest_autoresearch.measure.runs import Watcher, Workbench
from pytest_autoresearch.measure.scorer_files import ScorerFiles
from pytest_autoresearch.proposers.base import Context
from pytest_autoresearch.runners.base import Runner
from pytest_autoresearch.settings import Settings

# What goes back to nobody: whoever is told how a number was found out learns how not to be.
_FINAL = (CrashClass.REJECTED, CrashClass.UNWATCHED, CrashClass.OVER_DISK, CrashClass.OVER_PROCESSES)
_CHEAP = 0.1  # a run that failed after more than this share of its budget is repaired once, and no more


class Life:
    """Conducts experiments, each in the tree of its lane."""

    def __init__(
        self, settings: Settings, ratchet: Ratchet, harness: Harness, ledger: Ledger, attempts: Attempts,
        runner: Runner, losses: ScorerFiles, watcher: Watcher,
    ) -> None:  # fmt: skip
        self._settings = settings
        self._ratchet = ratchet
        self._harness = harness
        self._ledger = ledger
        self._attempts = attempts
        self._watcher = watcher
        self._workbench = Workbench(settings, ratchet, harness, ledger, runner, losses, watcher)
        self._charter = ""
        self._trees: dict[int, Worktree] = {}

    def conduct(self, number: int, lane: int, limits: Limits) -> Experiment | None:
        """Propose, guard, commit, run and score one experiment; what is left is to judge it.

        A crash goes back to its proposer as often as the settings allow. There is no process of its own for the
        preflight: the run's is at work on made-up tokens until it asks for its data, and whatever fails by then has
        cost seconds.

        Returns:
            The experiment with its runs, or with a refusal; None when there is nothing left to propose.

        Raises:
            Stopped: The session is ending.
            AutoresearchError: Git failed, which says nothing of any candidate.
        """
        timings: dict[str, float] = {}
        program = self._program()
        tree = self._tree(lane)

        def measured(attempt: Experiment) -> Experiment:
            dressed = replace(attempt, limits=limits, program_hash=_hash(program))
            if attempt.refusal is not None:
                return dressed
            with _stage(timings, "run"):
                return self._workbench.measure(dressed, tree, lane)

        if number == BASELINE:
            with _stage(timings, "propose"):
                first = self._attempts.baseline(number, tree)
            return replace(measured(first), timings=timings)
        idea = self._idea(number, tree, program)
        with _stage(timings, "propose"):
            attempt = self._ask(idea.begin)
        if attempt is None:
            self._watcher.end("there is nothing left to propose")
            return None
        experiment = measured(attempt)
        while (crash := experiment.crash) is not None and (stage := self._stage_of(experiment, idea)):
            self._watcher.progress[number] = Progress("proposing")
            with _stage(timings, "propose"):
                attempt = self._send_back(idea, experiment, crash, stage)
            if attempt is None:
                break
            self._keep_failed(experiment, tree, len(idea.repairs))
            experiment = measured(attempt)
        return replace(idea.settle(experiment), timings=timings)

    def keep_compiled(self, commits: Container[str]) -> None:
        """See `Workbench`."""
        self._workbench.keep_compiled(commits)

    def release(self, held: Container[int]) -> None:
        """Let other sessions have the lanes' trees, but for the lanes that are still held."""
        for lane, tree in list(self._trees.items()):
            if lane not in held:
                tree.release()

    # ------------------------------------------------------------------------------------------------- proposing

    def _idea(self, number: int, tree: Worktree, program: str) -> Idea:
        desk = SessionDesk(
            self._ledger.records, lambda record: _diff(record, tree), self._workbench.campaign_folder(), number,
            self._attempts.spent, lambda text: self._watcher.news.append(f"{number:04d}: {text}"),
        )  # fmt: skip

        def look() -> tuple[str, Context]:
            return self._ledger.base(), self._attempts.context(number, tree, program, desk)

        return Idea(self._attempts, self._settings, tree, desk, look)

    def _ask(self, question: Callable[[], Experiment | None]) -> Experiment | None:
        """The answer; None, and the campaign is over, where the proposer cannot go on or may spend no more."""
        try:
            return question()
        except (Spent, ProposerError) as error:
            self._watcher.end(str(error), failed=isinstance(error, ProposerError))
            return None

    def _send_back(self, idea: Idea, failed: Experiment, crash: Crash, stage: Stage) -> Experiment | None:
        return self._ask(lambda: idea.again(failed, crash, stage, failed.last_run.log if failed.last_run else ""))

    def _stage_of(self, experiment: Experiment, idea: Idea) -> Stage | None:
        """The stage that a crash came in, if it may go back to the proposer."""
        crash, run = experiment.crash, experiment.last_run
        if crash is None or run is None or crash.kind in _FINAL or run.role is Role.CONFIRM:
            return None
        if self._harness.score and run.training_seconds == 0:
            return Stage.PREFLIGHT
        dear = run.training_seconds > _CHEAP * experiment.budget_seconds
        return None if dear and any(repair.stage is Stage.RUN for repair in idea.repairs) else Stage.RUN

    def _keep_failed(self, experiment: Experiment, tree: Worktree, count: int) -> None:
        """What goes back is replaced by what comes of it: its change and its log stay for people."""
        folder = self._workbench.artifacts(experiment.number)
        (folder / f"failed-{count}.patch").write_text(_diff(experiment, tree), "utf-8", "surrogateescape")
        for log in folder.glob("train*.log"):
            log.replace(folder / log.name.replace("train", f"failed-{count}", 1))

    def _program(self) -> str:
        """The researcher's page as it is now; as it last was where it is being written at this moment."""
        try:
            text = (self._settings.root / "program.md").read_text("utf-8", "replace")
        except OSError as error:
            self._watcher.news.append(f"program.md cannot be read ({error}): it is taken as it was before")
            text = ""
        if text.strip():
            self._charter = text
        return self._charter

    def _tree(self, lane: int) -> Worktree:
        if lane not in self._trees:
            self._trees[lane] = self._ratchet.worktree(lane)
        return self._trees[lane]


@contextmanager
def _stage(timings: dict[str, float], name: str) -> Iterator[None]:
    began = time.monotonic()
    try:
        yield
    finally:
        timings[name] = timings.get(name, 0.0) + time.monotonic() - began


def _hash(program: str) -> str:
    return hashlib.sha256(program.encode()).hexdigest()[:16]


def _diff(experiment: Experiment, tree: Worktree) -> str:
    """The experiment's change as a patch; empty where nothing was committed."""
    if experiment.commit == experiment.base:
        return ""
    return tree.git.ask("diff", "--no-renames", "--no-ext-diff", experiment.base, experiment.commit) or ""
