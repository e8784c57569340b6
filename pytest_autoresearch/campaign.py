"""One campaign: how an experiment is conducted, what became of it, when to stop.

`Campaign.conduct` is the life of an experiment up to its result, and runs on a lane's thread; everything else is
called from the main thread. It is told what the verdict is; it knows nothing of items, reports or pytest.
"""

from __future__ import annotations

import contextlib
import hashlib
import shutil
import time
from collections.abc import Callable, Container, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

from pytest_autoresearch import verdict
from pytest_autoresearch.attempts import Attempts, Hooks
from pytest_autoresearch.describe import Harness
from pytest_autoresearch.errors import GitError, UserError
from pytest_autoresearch.experiment import (
    BASELINE,
    Experiment,
    Limits,
    Progress,
    Proposal,
    Run,
    Setting,
    Verdict,
)
from pytest_autoresearch.frozen import Frozen
from pytest_autoresearch.ledger import Ledger
from pytest_autoresearch.losses import Losses
from pytest_autoresearch.proposers.base import Proposer
from pytest_autoresearch.ratchet import Ratchet
from pytest_autoresearch.records import untried
from pytest_autoresearch.runners.base import Job, Runner
from pytest_autoresearch.settings import Settings
from pytest_autoresearch.worktree import Worktree

SEED = 42
LEAST_STARTUP_SECONDS = 30.0
_OUT_OF_MEMORY = ("oom", "over-memory")  # the allocator's own error, and ours from outside


class Campaign:
    """The state of one campaign in this session.

    Attributes:
        ledger: Every judged experiment.
        progress: Everything under way, and where it is, by number.
        why_over: Why nothing more is started, where it is not the number of slots.
    """

    def __init__(
        self,
        settings: Settings,
        ratchet: Ratchet,
        records: list[Experiment],
        harness: Harness,
        hooks: Hooks,
        runner: Runner,
        sandbox: str,
        make_proposer: Callable[[], Proposer],
    ) -> None:
        self.settings = settings
        self.ratchet = ratchet
        self.harness = harness
        self.runner = runner
        self.progress: dict[int, Progress] = {}
        self.setting = Setting(
            profile=harness.profile,
            hardware_key=harness.hardware_key,
            harness_hash=ratchet.tree_hash(settings.frozen) if settings.frozen else "",
            data_hash=harness.data_hash,
            sandbox=sandbox,
        )
        self.why_over = ""
        self._began = time.monotonic()
        like = Experiment(
            BASELINE, ratchet.tag, "", "", "", Proposal(""), limits=Limits(self.budget, 0, 0),
            metric_name=settings.metric, direction=settings.direction, setting=self.setting,
        )  # fmt: skip
        self.ledger = Ledger(ratchet, records, settings.root / "results.tsv", like)
        self._attempts = Attempts(settings, ratchet, self.ledger, like, hooks, make_proposer)
        trusted = [settings.root / path for path in settings.frozen]
        for folder in (inside for path in trusted for inside in path.rglob("__pycache__")):
            shutil.rmtree(folder, ignore_errors=True)  # compiled when, and from what, nobody knows
        self._frozen = Frozen([*trusted, *harness.data_files])
        self._losses = Losses(ratchet.home / "losses" / ratchet.tag)
        self._trees: dict[int, Worktree] = {}

    def open(self) -> None:
        """Take part: recover what a killed session left, and take up what it owes."""
        self.ledger.open()
        self._attempts.owe(untried(self.ledger.records, self.ratchet.waiting()))

    def close(self, held: Container[int] = ()) -> None:
        """Leave; a candidate that was committed and got no verdict is noted for the next session.

        Args:
            held: Lanes whose thread still runs: their trees are theirs until the process is gone.
        """
        with contextlib.suppress(GitError):  # where git fails, this is not the first to say so
            for experiment in list(self._attempts.in_flight.values()):
                self.ratchet.leave_waiting(experiment)
        for lane, tree in list(self._trees.items()):
            if lane not in held:
                tree.release()
        self.ratchet.close()

    def over(self) -> bool:
        """Whether nothing more is to be started."""
        self.why_over = self.why_over or self._limit_reached()
        return bool(self.why_over)

    def _limit_reached(self) -> str:
        """Which of the user's limits is reached, in a sentence; empty where none is."""
        total, hours, target = self.settings.total, self.settings.hours, self.settings.target
        if total is not None:
            under_way = set(self.progress) | {record.number for record in self.ledger.records}
            if len(under_way - {BASELINE}) >= total:
                return f"the campaign has its {total} experiments (--autoresearch-total)"
        if hours is not None and time.monotonic() - self._began > hours * 3600:
            return f"{hours:g} hours are over (--autoresearch-hours)"
        best = self.ledger.incumbent
        if target is not None and best is not None and self.settings.direction.gain(best.metric, target) >= 0:
            return f"{best.metric_name} {best.metric:.6f} has reached {target:g} (--autoresearch-target)"
        return ""

    @property
    def running(self) -> Mapping[int, str]:
        """The descriptions of the experiments under way that have one, by number."""
        return self._attempts.running

    @property
    def budget(self) -> float:
        """Training seconds of one run."""
        return self.settings.budget_seconds or self.harness.budget_seconds

    def take(self, number: int) -> None:
        """The number is under way from now on."""
        self.progress[number] = Progress("proposing")

    def limits(self, deadline_seconds: float | None) -> Limits:
        """What a run may use; the baseline's own startup sets the allowance of the others."""
        budget = self.budget
        memory = self.settings.memory_limit_mb or self.harness.memory_limit_mb
        deadline = deadline_seconds or max(2 * budget, budget + 120)
        startup = max(LEAST_STARTUP_SECONDS, deadline - budget)
        first = self.ledger.baseline
        if first is not None:
            startup = max(LEAST_STARTUP_SECONDS, 2 * max(run.startup_seconds for run in first.runs))
        return Limits(budget, min(startup, deadline), deadline, memory)

    # ------------------------------------------------------------------------------------- the life of an experiment

    def conduct(self, number: int, lane: int, deadline_seconds: float | None) -> Experiment | None:
        """Propose, guard, commit, run and score one experiment; what is left is to judge it.

        Returns:
            The experiment with its runs, or with a refusal; None when there is nothing left to propose.

        Raises:
            Stopped: The session is ending.
            AutoresearchError: Git or a proposer failed, which says nothing of any candidate.
        """
        timings: dict[str, float] = {}
        limits = self.limits(deadline_seconds)
        program = self._program()
        tree = self._tree(lane)
        with _stage(timings, "propose"):
            if number == BASELINE:
                attempt: Experiment | None = self._attempts.baseline(number, tree)
            else:
                attempt = self._attempts.next(number, tree, program)
        if attempt is None:
            self.why_over = "there is nothing left to propose"
            return None
        experiment = replace(
            attempt, limits=limits, margin=verdict.margin(),
            program_hash=hashlib.sha256(program.encode()).hexdigest()[:16],
        )  # fmt: skip
        if experiment.refusal is None:
            self._show_readable(tree)
            with _stage(timings, "run"):
                experiment = replace(experiment, runs=self._runs(experiment, tree, lane))
        return replace(experiment, timings=timings)

    def _runs(self, experiment: Experiment, tree: Worktree, lane: int) -> tuple[Run, ...]:
        """One run; and where it ran out of memory and the harness knows a way to need less, one more in that way.

        What follows a program that needed the way is given it from the start: it would run out all the same.
        """
        incumbent = self.ledger.incumbent
        variables = incumbent.runs[-1].variables if incumbent and incumbent.runs else {}
        runs = [self._run(experiment, tree, lane, variables, "train.log")]
        crash, less = runs[0].crash, self.harness.retry_out_of_memory
        if crash is not None and crash.reason in _OUT_OF_MEMORY and less and variables != less:
            tree.reset(experiment.commit)
            self._show_readable(tree)
            runs.append(self._run(experiment, tree, lane, less, "train-2.log"))
        return tuple(runs)

    def _run(
        self, experiment: Experiment, tree: Worktree, lane: int, variables: Mapping[str, str], log: str
    ) -> Run:  # fmt: skip
        job = Job(
            command=self.settings.command, folder=tree.folder, out=tree.out,
            log=self.artifacts(experiment.number) / log, seed=SEED, lane=lane, limits=experiment.limits,
            metric_name=self.settings.metric, score=self.harness.score, score_folder=self.settings.root,
            environment={**self.harness.environment, **variables}, rows=self.harness.training_rows,
            score_environment=self._losses.variables(experiment, self.ledger.baseline, self.ledger.incumbent),
            readable=(tree.top, *self.settings.readable_paths), covered=self.harness.hidden,
            trusted=tuple(self.settings.root / path for path in self.settings.frozen),
        )  # fmt: skip
        run = self.runner.run(job, lambda now: self._note(experiment.number, now))
        return replace(run, variables=variables)

    def artifacts(self, number: int) -> Path:
        """The folder for what an experiment leaves for people; git ignores it."""
        runs = self.settings.experiments_folder / "runs"
        folder = runs / self.ratchet.tag / f"{number:04d}"
        folder.mkdir(parents=True, exist_ok=True)
        ignore = runs / ".gitignore"
        if not ignore.exists():
            ignore.write_text("*\n")
        return folder

    def _tree(self, lane: int) -> Worktree:
        if lane not in self._trees:
            self._trees[lane] = self.ratchet.worktree(lane)
        return self._trees[lane]

    def _show_readable(self, tree: Worktree) -> None:
        """Untracked things that training needs appear in the lane's tree where they are in the checkout."""
        for name in self.settings.readable:
            path = Path(name).expanduser()
            if not path.is_absolute() and (self.settings.root / path).exists():
                link = tree.folder / path
                link.parent.mkdir(parents=True, exist_ok=True)
                if not link.exists():
                    link.symlink_to(self.settings.root / path)

    def _program(self) -> str:
        return (self.settings.root / "program.md").read_text("utf-8", "replace")

    def _note(self, number: int, now: Progress) -> None:
        self.progress[number] = now

    # --------------------------------------------------------------------------------------------- after the verdict

    def against_best(self, experiment: Experiment) -> Experiment:
        """The experiment beside the incumbent of this moment, which is what it has to beat."""
        incumbent = self.ledger.incumbent
        return replace(experiment, incumbent=incumbent.metric if incumbent else None)

    def record(self, experiment: Experiment, ruling: Verdict) -> Experiment:
        """Make a verdict permanent; the experiment as it stands in git, which has the last word.

        Raises:
            GitError: Git said no; nothing was recorded.
            UserError: A file on which the number depends was changed; nothing was recorded.
        """
        if changed := self._frozen.changed():
            raise UserError(
                f"{changed[0]} was changed while the session ran, so that its numbers cannot be compared: put it back "
                "and type the same command again"
            )
        judged = self.ledger.record(experiment.judged(ruling, time.time()))
        if judged.verdict is not None and judged.verdict.reason == "stale":
            self._attempts.owe([judged])
        self.forget(experiment.number)
        self._losses.keep_only(self._attempts.compared())
        return judged

    def forget(self, number: int) -> None:
        """The experiment is no longer under way."""
        self._attempts.forget(number)
        self.progress.pop(number, None)


@contextmanager
def _stage(timings: dict[str, float], name: str) -> Iterator[None]:
    began = time.monotonic()
    try:
        yield
    finally:
        timings[name] = time.monotonic() - began
