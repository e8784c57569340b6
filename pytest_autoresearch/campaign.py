"""One campaign: what to try next, how an experiment is conducted, when to stop.

`Campaign.conduct` is the life of an experiment up to its result, and runs on a lane's thread; everything else is
called from the main thread. It is told what the verdict is; it knows nothing of items, reports or pytest.
"""

from __future__ import annotations

import contextlib
import hashlib
import threading
import time
from collections.abc import Callable, Container, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any, Protocol

from pytest_autoresearch import guard, verdict
from pytest_autoresearch.describe import Harness
from pytest_autoresearch.errors import GitError, Refused
from pytest_autoresearch.experiment import (
    BASELINE,
    Crash,
    Experiment,
    Limits,
    Progress,
    Proposal,
    Setting,
    Verdict,
)
from pytest_autoresearch.ledger import Ledger
from pytest_autoresearch.proposers.base import Context, Proposer
from pytest_autoresearch.ratchet import Ratchet
from pytest_autoresearch.records import one_line, untried
from pytest_autoresearch.runners.base import Job, Runner
from pytest_autoresearch.settings import Settings
from pytest_autoresearch.worktree import Worktree

REPAIRS = 3  # how often a refused proposal goes back to its proposer
SEED = 42
LEAST_STARTUP_SECONDS = 30.0


class Hooks(Protocol):
    """The user's hooks; each call arrives on the main thread, whoever asks."""

    def propose(self, context: Context, failure: str) -> Proposal | None: ...

    def guard(self, context: Context, proposal: Proposal) -> str | None: ...


class Campaign:
    """The state of one campaign in this session.

    Attributes:
        ledger: Every judged experiment.
        progress: Everything under way, and where it is, by number.
        running: The descriptions of those that have one, by number.
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
        make_proposer: Callable[[], Proposer],
    ) -> None:
        self.settings = settings
        self.ratchet = ratchet
        self.harness = harness
        self.runner = runner
        self.running: dict[int, str] = {}
        self.progress: dict[int, Progress] = {}
        self.setting = Setting(
            profile=harness.profile,
            hardware_key=harness.hardware_key,
            harness_hash=ratchet.tree_hash(settings.frozen) if settings.frozen else "",
            data_hash=harness.data_hash,
        )
        self.why_over = ""
        like = replace(self._blank(Proposal(""), "", "", ""), limits=Limits(self.budget, 0, 0))
        self.ledger = Ledger(ratchet, records, settings.root / "results.tsv", like)
        self._hooks = hooks
        self._make_proposer = make_proposer
        self._proposer: Proposer | None = None
        self._proposing = threading.Lock()
        self._lock = threading.Lock()
        self._owed: list[Experiment] = []
        self._trees: dict[int, Worktree] = {}
        self._in_flight: dict[int, Experiment] = {}

    def open(self) -> None:
        """Take part: recover what a killed session left, and take up what it owes."""
        self.ledger.open()
        self._owed = untried(self.ledger.records, self.ratchet.waiting())

    def close(self, held: Container[int] = ()) -> None:
        """Leave; a candidate that was committed and got no verdict is noted for the next session.

        Args:
            held: Lanes whose thread still runs: their trees are theirs until the process is gone.
        """
        with contextlib.suppress(GitError):  # where git fails, this is not the first to say so
            for experiment in list(self._in_flight.values()):
                self.ratchet.leave_waiting(experiment)
        for lane, tree in list(self._trees.items()):
            if lane not in held:
                tree.release()
        self.ratchet.close()

    def over(self) -> bool:
        """Whether nothing more is to be started."""
        total = self.settings.total
        if total is not None and not self.why_over:
            under_way = set(self.progress) | {record.number for record in self.ledger.records}
            if len(under_way - {BASELINE}) >= total:
                self.why_over = f"the campaign has its {total} experiments (--autoresearch-total)"
        return bool(self.why_over)

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
            attempt = self._baseline(tree) if number == BASELINE else self._attempt(number, tree, program)
        if attempt is None:
            self.why_over = "there is nothing left to propose"
            return None
        experiment = replace(
            attempt, number=number, limits=limits, margin=verdict.margin(),
            program_hash=hashlib.sha256(program.encode()).hexdigest()[:16],
        )  # fmt: skip
        if experiment.refusal is None:
            self._show_readable(tree)
            with _stage(timings, "run"):
                run = self.runner.run(self._job(experiment, tree, lane), lambda now: self._note(number, now))
            experiment = replace(experiment, runs=(run,))
        return replace(experiment, timings=timings)

    def _baseline(self, tree: Worktree) -> Experiment:
        """The commit that the user has checked out, as it is."""
        start = self.ratchet.start
        tree.reset(start)
        self.running[BASELINE] = "baseline"
        return self._blank(Proposal("baseline"), start, start, tree.git("rev-parse", f"{start}^{{tree}}"))

    def _attempt(self, number: int, tree: Worktree, program: str) -> Experiment | None:
        """A guarded, committed proposal; or a refused one, whose commit is the base."""
        base = self.ledger.base()
        context = Context(
            number=number,
            folder=tree.folder,
            editable=self.settings.editable,
            program=program,
            records=tuple(self.ledger.records),
            running=tuple(self.running.items()),
            root=self.settings.root,
            experiments=self.settings.experiments_folder,
        )
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
        blank = self._blank(proposal, base, base, tree.git("rev-parse", f"{base}^{{tree}}"))
        return replace(blank, refusal=Crash(refusal.crash, str(refusal)))

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
        said = one_line(f"{self.settings.description} {proposal.description}") or f"experiment {number:04d}"
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
        changes = tree.changes(base)
        prefix = f"{self.ratchet.prefix.as_posix()}/" if self.ratchet.prefix.parts else ""
        editable = tuple(prefix + pattern for pattern in self.settings.editable)
        guard.check_changes(proposal, changes, editable)
        guard.check_texts(proposal, {c.path: (tree.top / c.path).read_bytes() for c in changes if c.kind != "D"})
        if reason := self._hooks.guard(context, proposal):
            raise Refused(reason, proposal)
        body = f"{proposal.description}\n\n{proposal.hypothesis}".strip()
        commit, tree_hash = tree.commit(base, body)
        attempt = replace(self._blank(proposal, commit, base, tree_hash), number=context.number)
        with self._lock:  # two lanes may have had the same idea
            guard.check_new(proposal, tree_hash, [*self.ledger.tried(tree_hash), *self._in_flight.values()])
            self._in_flight[context.number] = attempt
        return attempt

    def _blank(self, proposal: Proposal, commit: str, base: str, tree_hash: str) -> Experiment:
        return Experiment(
            BASELINE, self.ratchet.tag, commit, base, tree_hash, proposal,
            metric_name=self.settings.metric, direction=self.settings.direction, setting=self.setting,
        )  # fmt: skip

    def _job(self, experiment: Experiment, tree: Worktree, lane: int) -> Job:
        artifacts = self.artifacts(experiment.number)
        return Job(
            command=self.settings.command, folder=tree.folder, out=tree.out, log=artifacts / "train.log", seed=SEED,
            lane=lane, limits=experiment.limits, metric_name=self.settings.metric, score=self.harness.score,
            score_folder=self.settings.root, environment=self.harness.environment,
        )  # fmt: skip

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
        """
        judged = self.ledger.record(experiment.judged(ruling, time.time()))
        if judged.verdict is not None and judged.verdict.reason == "stale":
            self._owed.append(judged)
        self.forget(experiment.number)
        return judged

    def forget(self, number: int) -> None:
        """The experiment is no longer under way."""
        self._in_flight.pop(number, None)
        self.running.pop(number, None)
        self.progress.pop(number, None)


@contextmanager
def _stage(timings: dict[str, float], name: str) -> Iterator[None]:
    began = time.monotonic()
    try:
        yield
    finally:
        timings[name] = time.monotonic() - began


def make_proposer(name: str) -> Any:
    """The proposer of that name; what it needs is imported only now."""
    if name == "queue":
        from pytest_autoresearch.proposers.queue import QueueProposer

        return QueueProposer()
    from pytest_autoresearch.proposers.search import SearchProposer

    return SearchProposer(SEED)
