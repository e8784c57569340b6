"""Measures programs of a finished campaign beside each other, on the same fresh seeds, as its own runs were measured.

Every run is kept in a file, so that an interrupted measurement goes on where it stopped. Blocks the calling thread and
checks there whether to stop. Knows nothing of the command line.
"""

from __future__ import annotations

import hashlib
import json
import threading
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path

from pytest_autoresearch.core.errors import UserError
from pytest_autoresearch.core.experiment import BASELINE, Experiment
from pytest_autoresearch.core.records import to_json
from pytest_autoresearch.core.run import CrashClass, Limits, Run
from pytest_autoresearch.core.setting import Setting
from pytest_autoresearch.core.text import one_line
from pytest_autoresearch.keeprule.ablation import order_of_turns
from pytest_autoresearch.ledger.ledger import Ledger
from pytest_autoresearch.ledger.ratchet import Ratchet
from pytest_autoresearch.ledger.worktree import Worktree
from pytest_autoresearch.measure import runs
from pytest_autoresearch.measure.harness import Harness
from pytest_autoresearch.measure.integrity import Frozen, remove_bytecode
from pytest_autoresearch.measure.kept_runs import KeptRuns
from pytest_autoresearch.measure.lane_threads import in_threads, interruptible
from pytest_autoresearch.measure.place import Place
from pytest_autoresearch.measure.runs import RunMaker, Watcher
from pytest_autoresearch.measure.scorer_files import ScorerFiles
from pytest_autoresearch.settings import Settings

_MOST_CRASHES = 2  # of a program; then it is not run again


@dataclass(frozen=True, slots=True)
class Program:
    """A program to measure.

    Attributes:
        name: For people, and for the log's name.
        tree: Its git tree: what is measured.
        commit: A commit with this tree.
        like: The kept experiment that it is most like; its runs have the same variables and direction.
    """

    name: str
    tree: str
    commit: str
    like: Experiment


@dataclass(frozen=True, slots=True)
class Condition:
    """The conditions of runs.

    Attributes:
        name: For people; empty for those of the campaign.
        limits: The limits of each run.
        variables: More variables for training.
    """

    name: str
    limits: Limits
    variables: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Measured:
    """The runs of several programs under one condition.

    Attributes:
        runs: By the program's name and the seed; the last run that counts.
    """

    runs: Mapping[str, Mapping[int, Run]]

    @property
    def metrics(self) -> dict[str, dict[int, float]]:
        """The metrics, of the runs that have one."""
        return {
            name: {seed: run.metric for seed, run in made.items() if run.metric is not None}
            for name, made in self.runs.items()
        }

    def crash(self, name: str) -> str:
        """Why the program's first run that crashed did; empty if none did."""
        found = (one_line(str(run.crash))[:200] for run in self.runs.get(name, {}).values() if run.crash is not None)
        return next(found, "")


class Remeasurement:
    """Measures programs of one campaign, between the beginning and the end of `held`.

    Args:
        setting: The conditions of measurements here.
        lanes: How many runs are made at a time.
        watcher: Follows the runs.
        say: Called with one line for each run, on any thread.
        stopped: Called several times a second; if it returns True, the measurement ends.
    """

    def __init__(
        self, settings: Settings, ratchet: Ratchet, harness: Harness, setting: Setting, ledger: Ledger, place: Place,
        lanes: int, watcher: Watcher, say: Callable[[str], None], stopped: Callable[[], bool],
    ) -> None:  # fmt: skip
        self._settings = settings
        self._ratchet = ratchet
        self._setting = setting
        self._ledger = ledger
        self._place = place
        self._lanes = lanes
        self._say = say
        self._stopped = stopped
        self._data = harness.data_files
        self._files = ScorerFiles(ratchet.home / "losses" / ratchet.tag)
        self._run_maker = RunMaker(settings, ratchet, harness, ledger, place, self._files, watcher)
        self._trees: list[Worktree] = []
        self._lock = threading.Lock()

    @contextmanager
    def held(self) -> Iterator[None]:
        """Have the campaign for this process alone.

        Raises:
            UserError: A session runs, or a file that results depend on changed meanwhile.
        """
        trusted = [self._settings.root / path for path in self._settings.frozen]
        remove_bytecode(trusted)
        with self._ratchet.alone():
            frozen = Frozen([*trusted, *self._data])
            self._trees = [self._ratchet.worktree(lane) for lane in range(self._lanes)]
            try:
                yield
            finally:
                for tree in self._trees:
                    tree.release()
            if changed := frozen.changed():
                raise UserError(f"{changed[0]} changed meanwhile: restore it and rerun the same command")

    def measure(self, programs: Sequence[Program], count: int, condition: Condition) -> Measured:
        """Run each program on the same seeds, as far as that was not done before.

        Args:
            count: The number of seeds.

        Raises:
            Stopped: `stopped` returned True, or too many runs in a row were inconclusive.
            UserError: The scorer rejected the campaign's own last program.
            AutoresearchError: Git or the sandbox failed.
        """
        kept = KeptRuns(self._file(condition))
        seeds = kept.seeds(count, self._fresh)
        named = {program.name: program for program in programs}
        plan = [(named[name], seed) for name, seed in order_of_turns(list(named), seeds)]
        left = deque((one, seed) for one, seed in plan if kept.get(one.tree, seed) is None)
        total, done = len(left), 0
        crashed = {name: sum(not _counts(kept.get(one.tree, seed)) for seed in seeds) for name, one in named.items()}

        def work(tree: Worktree, lane: int) -> None:
            nonlocal done
            while True:
                with self._lock:
                    if not left:
                        return
                    program, seed = left.popleft()
                    done += 1
                    at = done
                if crashed[program.name] >= _MOST_CRASHES or kept.get(program.tree, seed) is not None:
                    continue  # or two programs are the same
                run = self._run(program, seed, condition, tree, lane)
                kept.add(program.tree, seed, run)
                with self._lock:
                    crashed[program.name] += run.metric is None
                    self._say(f"{at}/{total} {_said(program, seed, condition, run)}")

        works = [partial(work, tree, lane) for lane, tree in enumerate(self._trees)]
        try:
            interruptible(lambda: in_threads(works), self._stopped, self._place.close)
        finally:
            self._files.end_audit()
        found = {
            name: {seed: run for seed in seeds if (run := kept.get(one.tree, seed)) is not None}
            for name, one in named.items()
        }
        return Measured(found)

    def left(self, programs: Sequence[Program], count: int, condition: Condition) -> int:
        """How many runs `measure` has still to make."""
        kept = KeptRuns(self._file(condition))
        seeds = kept.seeds(count, self._fresh)
        return sum(kept.get(tree, seed) is None for tree in {one.tree for one in programs} for seed in seeds)

    def _run(self, program: Program, seed: int, condition: Condition, tree: Worktree, lane: int) -> Run:
        like = program.like
        last = like.last_run
        with_variables = (replace(last, variables={**last.variables, **condition.variables}),) if last else ()
        experiment = replace(like, commit=program.commit, limits=condition.limits, runs=with_variables)
        below = None if like.number == BASELINE else like.direction.worst  # the baseline is trusted; others are probed
        log = "-".join(["finalize", *program.name.split(), *condition.name.split(), str(seed)])
        made = self._run_maker.audit(experiment, seed, below, (), tree, lane, log.replace("/", "_"))
        run = made[-1]
        if run.crash is not None and run.crash.kind is CrashClass.REJECTED and program.name == "stack":
            raise UserError(
                f"the scorer rejected the last keep, {like.number:04d} ({run.crash.message}): type `autoresearch audit "
                f"{self._ratchet.tag}`, which takes it back"
            )
        return run

    def _fresh(self) -> int:
        """A seed that no run of the campaign had."""
        known = {run.seed for record in self._ledger.records for run in record.runs}
        known |= {run.seed for one in self._ratchet.audits() for run in one.runs}
        return next(seed for seed in iter(runs.new_seed, None) if seed not in known)

    def _file(self, condition: Condition) -> Path:
        """The file of runs under exactly these conditions."""
        what = (to_json(self._setting), to_json(condition.limits), dict(condition.variables), self._settings.metric)
        digest = hashlib.sha256(json.dumps(what, sort_keys=True, default=str).encode()).hexdigest()[:12]
        return self._settings.campaign_artifacts(self._ratchet.tag).make() / f"finalize-{digest}.jsonl"


def _counts(run: Run | None) -> bool:
    return run is None or run.metric is not None


def _said(program: Program, seed: int, condition: Condition, run: Run) -> str:
    where = f" at {condition.name}" if condition.name else ""
    how = "measured" if run.metric is not None else f"crash: {one_line(str(run.crash))[:200]}"
    return f"{program.name}{where}, seed {seed}: {how}"
