"""The life of an experiment up to its result: propose, guard, commit, preflight, run, score, and back after a crash.

Runs on a lane's thread. Knows nothing of items, verdicts or reports.
"""

from __future__ import annotations

import hashlib
import shutil
import time
from collections import deque
from collections.abc import Callable, Container, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Protocol

from pytest_autoresearch import trials
from pytest_autoresearch.attempts import Attempts
from pytest_autoresearch.describe import Harness
from pytest_autoresearch.desk import SessionDesk
from pytest_autoresearch.errors import ProposerError, Spent
from pytest_autoresearch.experiment import BASELINE, Crash, Experiment, Limits, Progress, Run
from pytest_autoresearch.idea import Idea
from pytest_autoresearch.ledger import Ledger
from pytest_autoresearch.losses import Losses
from pytest_autoresearch.proposers.base import Context
from pytest_autoresearch.ratchet import Ratchet
from pytest_autoresearch.runners.base import Job, Runner
from pytest_autoresearch.runners.compiled import fill
from pytest_autoresearch.settings import Settings
from pytest_autoresearch.worktree import Worktree

_OUT_OF_MEMORY = ("oom", "over-memory")  # the allocator's own error, and ours from outside
# What goes back to nobody: whoever is told how a number was found out learns how not to be.
_FINAL = ("rejected", "unwatched", "over-disk", "over-processes")
_CHEAP = 0.1  # a run that failed after more than this share of its budget is repaired once, and no more


class Watcher(Protocol):
    """Whoever follows the experiments from outside: the campaign.

    Attributes:
        progress: Where each of them is, by number.
        news: Sentences for a person.
    """

    progress: dict[int, Progress]
    news: deque[str]

    def end(self, why: str, failed: bool = False) -> None: ...


@dataclass(frozen=True, slots=True)
class _Order:
    """One run to be made for an experiment: see `trials.RunOnce`; `log` is its log's name."""

    experiment: Experiment
    commit: str
    seed: int
    role: str
    below: float | None
    log: str


class Life:
    """Conducts experiments, each in the tree of its lane."""

    def __init__(
        self, settings: Settings, ratchet: Ratchet, harness: Harness, ledger: Ledger, attempts: Attempts,
        runner: Runner, losses: Losses, watcher: Watcher,
    ) -> None:  # fmt: skip
        self._settings = settings
        self._ratchet = ratchet
        self._harness = harness
        self._ledger = ledger
        self._attempts = attempts
        self._runner = runner
        self._losses = losses
        self._watcher = watcher
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
                return self._tried(dressed, tree, lane)

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

    def release(self, held: Container[int]) -> None:
        """Let other sessions have the lanes' trees, but for the lanes that are still held."""
        for lane, tree in list(self._trees.items()):
            if lane not in held:
                tree.release()

    # ------------------------------------------------------------------------------------------------- proposing

    def _idea(self, number: int, tree: Worktree, program: str) -> Idea:
        desk = SessionDesk(
            self._ledger.records, lambda record: _diff(record, tree), self._campaign_folder(), number,
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

    def _send_back(self, idea: Idea, failed: Experiment, crash: Crash, stage: str) -> Experiment | None:
        return self._ask(lambda: idea.again(failed, crash, stage, failed.last_run.log if failed.last_run else ""))

    def _stage_of(self, experiment: Experiment, idea: Idea) -> str:
        """The stage that a crash came in, if it may go back to the proposer; else nothing."""
        crash, run = experiment.crash, experiment.last_run
        if crash is None or run is None or crash.reason in _FINAL or run.role == "confirm":
            return ""
        if self._harness.score and run.training_seconds == 0:
            return "preflight"
        dear = run.training_seconds > _CHEAP * experiment.budget_seconds
        return "" if dear and any(repair.stage == "run" for repair in idea.repairs) else "run"

    def _keep_failed(self, experiment: Experiment, tree: Worktree, count: int) -> None:
        """What goes back is replaced by what comes of it: its change and its log stay for people."""
        folder = self._artifacts(experiment.number)
        (folder / f"failed-{count}.patch").write_text(_diff(experiment, tree), "utf-8", "surrogateescape")
        for log in folder.glob("train*.log"):
            log.replace(folder / log.name.replace("train", f"failed-{count}", 1))

    # --------------------------------------------------------------------------------------------------- running

    def _tried(self, experiment: Experiment, tree: Worktree, lane: int) -> Experiment:
        """The experiment with all the runs that the keep rule asks for."""
        rule, prior, head = self._settings.rule, self._harness.prior(self._settings.metric), self._ledger.incumbent
        counts: dict[str, int] = {}

        def run(commit: str, seed: int, role: str, below: float | None) -> tuple[Run, ...]:
            counts[role] = count = counts.get(role, 0) + 1
            log = "train" if role == "screen" or (role, count) == ("baseline", 1) else f"{role}-{count}"
            return self._with_retry(_Order(experiment, commit, seed, role, below, log), tree, lane)

        if experiment.number == BASELINE or head is None:
            return trials.baseline(experiment, rule, prior, run)
        return trials.candidate(experiment, head, self._ledger.records, rule, prior, run, self._settings.simplify)

    def _with_retry(self, order: _Order, tree: Worktree, lane: int) -> tuple[Run, ...]:
        """One run; and where it ran out of memory and the harness knows a way to need less, one more in that way.

        What follows a program that needed the way is given it from the start: it would run out all the same.
        """
        incumbent = self._ledger.incumbent
        variables = incumbent.last_run.variables if incumbent and incumbent.last_run else {}
        first = self._run(order, tree, lane, variables)
        crash, less = first.crash, self._harness.retry_out_of_memory
        if crash is None or crash.reason not in _OUT_OF_MEMORY or not less or variables == less:
            return (first,)
        return first, self._run(replace(order, log=f"{order.log}-2"), tree, lane, less)

    def _run(self, order: _Order, tree: Worktree, lane: int, variables: Mapping[str, str]) -> Run:
        settings, harness, experiment, baseline = self._settings, self._harness, order.experiment, self._ledger.baseline
        tree.reset(order.commit)
        self._show_readable(tree)
        head = self._ledger.incumbent
        # The second run of a baseline that is not recorded yet has no first one to be held to.
        known = experiment if order.role == "baseline" and order.log != "train" else baseline
        clocked, kept = harness.score is not None, self._compiled(order.commit)
        if clocked:  # where nobody asks for the clock, nothing would be kept, and the user's own cache is better
            fill(tree.cache, [kept, self._compiled(baseline.commit if baseline else order.commit)])
        job = Job(
            command=settings.command, folder=tree.folder, out=tree.out,
            log=self._artifacts(experiment.number) / f"{order.log}.log", seed=order.seed, lane=lane,
            limits=experiment.limits, metric_name=settings.metric, score=harness.score, score_folder=settings.root,
            environment={**harness.environment, **variables}, rows=harness.training_rows,
            score_environment=self._losses.variables(order.commit, known, head.commit if head else "", order.below),
            readable=(tree.top, *settings.readable_paths), covered=harness.hidden,
            trusted=tuple(settings.root / path for path in settings.frozen),
            cache=tree.cache if clocked else None, keep_cache=kept,
        )  # fmt: skip
        which = "" if order.log == "train" else order.log

        def note(now: Progress) -> None:
            self._watcher.progress[experiment.number] = replace(now, run=which)

        run = self._runner.run(job, note)
        other = "" if order.commit == experiment.commit else order.commit
        return replace(run, variables=variables, role=order.role, commit=other)

    def _compiled(self, commit: str) -> Path:
        """Where what compilers made of a commit is kept, from before it had seen data."""
        return self._ratchet.home / "compiled" / self._ratchet.tag / commit

    def keep_compiled(self, commits: Container[str]) -> None:
        """Remove what is kept of all other commits but the baseline."""
        baseline = self._ledger.baseline
        for folder in self._compiled("").glob("*"):
            if folder.name not in commits and (baseline is None or folder.name != baseline.commit):
                shutil.rmtree(folder, ignore_errors=True)

    def _artifacts(self, number: int) -> Path:
        """The folder for what an experiment leaves for people; git ignores it."""
        folder = self._campaign_folder() / f"{number:04d}"
        folder.mkdir(parents=True, exist_ok=True)
        return folder

    def _campaign_folder(self) -> Path:
        runs = self._settings.experiments_folder / "runs"
        folder = runs / self._ratchet.tag
        folder.mkdir(parents=True, exist_ok=True)
        ignore = runs / ".gitignore"
        if not ignore.exists():
            ignore.write_text("*\n")
        return folder

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

    def _show_readable(self, tree: Worktree) -> None:
        """Untracked things that training needs appear in the lane's tree where they are in the checkout."""
        for name in self._settings.readable:
            path = Path(name).expanduser()
            if not path.is_absolute() and (self._settings.root / path).exists():
                link = tree.folder / path
                link.parent.mkdir(parents=True, exist_ok=True)
                if not link.exists():
                    link.symlink_to(self._settings.root / path)


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
