"""Makes the runs of an experiment: prepares each run, repeats inconclusive ones, and races it.

Works on a lane's thread. Knows the keep rule and the place of the runs; nothing of proposals, test items or verdicts.
"""

from __future__ import annotations

import secrets
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from typing import Protocol

from pytest_autoresearch.core.errors import Stopped
from pytest_autoresearch.core.experiment import BASELINE, Experiment
from pytest_autoresearch.core.run import CrashClass, Progress, Role, Run
from pytest_autoresearch.keeprule import replicates
from pytest_autoresearch.keeprule.racing import Race, Racer, is_spared, racer_of
from pytest_autoresearch.ledger.ledger import Ledger
from pytest_autoresearch.ledger.ratchet import Ratchet
from pytest_autoresearch.ledger.worktree import Worktree
from pytest_autoresearch.measure import confirm
from pytest_autoresearch.measure.beside import Beside, Borrowed, FreePlaces, NoPlaces
from pytest_autoresearch.measure.confirm import Wanted
from pytest_autoresearch.measure.harness import Harness
from pytest_autoresearch.measure.place import Place, RunSpec
from pytest_autoresearch.measure.scorer_files import ScorerFiles, ScorerInput
from pytest_autoresearch.measure.validity import disturbed, honestly_out_of_memory, unsteady
from pytest_autoresearch.settings import Settings

_SEEDS = 2**31
_DRAWN_ONE_IN = 4  # of the runs after the first whose metric gives no reason for a probe, this share is probed too
_DRAWN = (Role.CONFIRM, Role.INCUMBENT)


def new_seed() -> int:
    """A seed that nobody can foresee, so that no proposal can be made for it."""
    return secrets.randbelow(_SEEDS)


class Watcher(Protocol):
    """Follows the experiments of a session; the campaign and the audit command implement it."""

    def note(self, number: int, progress: Progress) -> None:
        """The progress of the experiment's run."""
        ...

    def note_beside(self, number: int, lane: int, progress: Progress | None) -> None:
        """The progress of the experiment's run on a lane that is not its own; None after its end."""
        ...

    def say(self, text: str) -> None:
        """Show a sentence to the user."""
        ...

    def end(self, why: str, failed: bool = False) -> None:
        """Start no more experiments; `failed` if the reason is an error."""
        ...


@dataclass(frozen=True, slots=True)
class _Order:
    """One run to be made for an experiment; see `confirm.Wanted`.

    Attributes:
        before: The earlier runs of its commit for this experiment.
        log: The log's name.
        racer: Races the run; None if the run is not raced.
        runs: How many runs its experiment has, if that is known; else None.
        excused: Why runs of its experiment were `unsteady`, which a program can cause itself; one list per experiment.
        borrowed: Whether the run may go on, if its lane is only borrowed; else None.
    """

    experiment: Experiment
    commit: str
    seed: int
    role: Role
    below: float | None
    bar: float | None
    before: tuple[Run, ...]
    log: str
    racer: Racer | None
    runs: int | None
    excused: list[str]
    borrowed: Borrowed | None = None


class RunMaker:
    """Runs commits for experiments."""

    def __init__(
        self, settings: Settings, ratchet: Ratchet, harness: Harness, ledger: Ledger, place: Place,
        files: ScorerFiles, watcher: Watcher,
    ) -> None:  # fmt: skip
        self._settings = settings
        self._ratchet = ratchet
        self._harness = harness
        self._ledger = ledger
        self._artifacts = settings.campaign_artifacts(ratchet.tag)
        self._place = place
        self._files = files
        self._watcher = watcher
        self._in_doubt = 0  # the number of runs in doubt in a row
        self._time = replicates.time_of(ledger.records, time.time()) or secrets.token_hex(4)

    def measure(
        self, experiment: Experiment, tree: Worktree, lane: int, places: FreePlaces | None = None
    ) -> Experiment:
        """The experiment with all the runs that the keep rule asks for.

        Args:
            places: Other lanes that may be free: runs that do not depend on each other are made side by side there.

        Raises:
            Stopped: The session is ending, or too many runs in a row were inconclusive.
        """
        rule, prior = self._settings.rule, self._harness.prior(self._settings.metric)
        head = self._ledger.kept_at(experiment.base)  # not a later one: a lane may have moved the branch since
        raced = self._settings.racing == "on" and rule.looks and experiment.comparable
        racer = racer_of(self._ledger.records) if raced else None
        logs: dict[Wanted, str] = {}
        counts: dict[Role, int] = {}
        made = list(experiment.runs)
        merged = len({run.commit for run in made if run.role is Role.SCREEN})
        excused: list[str] = []
        planned = (prior.baseline_runs if rule.looks else 1) if experiment.number == BASELINE else None

        def order_of(wanted: Wanted) -> _Order:
            role, key = wanted.role, _key(wanted)
            if key not in logs:
                counts[role] = count = counts.get(role, 0) + 1
                log = "train" if role is Role.SCREEN or (role, count) == (Role.BASELINE, 1) else f"{role}-{count}"
                logs[key] = f"merged-{merged}-{log}" if merged else log
            before = tuple(one for one in made if (one.commit or experiment.commit) == wanted.commit)
            return _Order(
                experiment, wanted.commit, wanted.seed, role, wanted.below, wanted.bar, before, logs[key], racer,
                planned, excused,
            )  # fmt: skip

        def run(wanted: Wanted, next_ones: Iterable[Wanted] = ()) -> tuple[Run, ...]:
            own = None if beside.has(_key(wanted)) else order_of(wanted)
            for one in next_ones:
                if not beside.has(_key(one)) and not beside.begin(_key(one), partial(order_of, one)):
                    break
            if own is None:
                self._watcher.note(experiment.number, Progress("waiting for a run on another lane"))
            runs = beside.result(_key(wanted))
            runs = runs or self._with_retry(own or order_of(wanted), tree, lane)
            made.extend(runs)
            return runs

        def run_baseline(count: int) -> tuple[Run, ...]:
            asked = [Wanted(experiment.commit, new_seed(), Role.BASELINE) for _ in range(count)]
            runs: tuple[Run, ...] = ()
            for at, wanted in enumerate(asked):
                runs += run(wanted, asked[at + 1 :])
                if runs[-1].metric is None:
                    break
            return runs

        with Beside[_Order](places or NoPlaces(), self._borrowing) as beside:
            if experiment.number == BASELINE or head is None:
                done = confirm.baseline(experiment, rule, prior, run_baseline)
            else:
                done = confirm.candidate(
                    experiment, head, self._ledger.records, rule, prior, run, new_seed, self._settings.simplify,
                    self._time,
                )  # fmt: skip
        return replace(done, runs=(*done.runs, *map(_unasked, beside.left)))

    def audit(
        self, experiment: Experiment, seed: int, below: float | None, before: tuple[Run, ...], tree: Worktree,
        lane: int = 0, log: str = "",
    ) -> tuple[Run, ...]:  # fmt: skip
        """One run of a kept experiment's commit for an audit, which is not raced, after repeats of inconclusive ones.

        Args:
            experiment: The recorded experiment.
            seed: The seed.
            below: See `confirm.RunOnce`.
            before: The commit's runs for this audit so far.
            tree: The worktree to run in.
            lane: The lane.
            log: The log's name, if it is not the audit's own.

        Raises:
            Stopped: See `measure`.
        """
        log = log or f"{Role.AUDIT}-{seed}"
        order = _Order(experiment, experiment.commit, seed, Role.AUDIT, below, None, before, log, None, None, [])
        return self._with_retry(order, tree, lane)

    def new_seed(self) -> int:
        """See `new_seed`."""
        return new_seed()

    def together(
        self, experiment: Experiment, commit: str, seed: int, role: Role, below: float | None, log: str, tree: Worktree,
        lane: int,
    ) -> tuple[Run, ...]:  # fmt: skip
        """One run of a batch, which is not raced, after repeats of inconclusive ones.

        Args:
            experiment: The one in whose name it is made.
            commit: What is run.
            seed: The seed.
            role: The purpose.
            below: See `confirm.Wanted`.
            log: The log's name.
            tree: The worktree to run in.
            lane: The lane.

        Raises:
            Stopped: See `measure`.
        """
        order = _Order(experiment, commit, seed, role, below, None, (), log, None, None, [])
        return self._with_retry(order, tree, lane)

    def _borrowing(self, order: _Order, tree: Worktree, lane: int, borrowed: Borrowed) -> tuple[Run, ...]:
        try:
            return self._with_retry(replace(order, borrowed=borrowed), tree, lane)
        finally:
            self._watcher.note_beside(order.experiment.number, lane, None)

    def _with_retry(self, order: _Order, tree: Worktree, lane: int) -> tuple[Run, ...]:
        """One run that counts, and a retry with less memory if it ran out and the harness has variables for that.

        If the incumbent needed these variables, its candidates get them from the start.
        """
        like = order.experiment if order.role is Role.AUDIT else self._ledger.incumbent
        variables = like.last_run.variables if like and like.last_run else {}
        first, less = self._beyond_doubt(order, tree, lane, variables), self._harness.retry_out_of_memory
        if not less or variables == less or not honestly_out_of_memory(first[-1], order.experiment.limits):
            return first
        return *first, *self._beyond_doubt(replace(order, log=f"{order.log}-2"), tree, lane, less)

    def _beyond_doubt(
        self, order: _Order, tree: Worktree, lane: int, variables: Mapping[str, str]
    ) -> tuple[Run, ...]:  # fmt: skip
        """The inconclusive runs, and those whose node was lost; after them one run that counts.

        Raises:
            Stopped: Too many runs in a row were inconclusive.
        """
        void: tuple[Run, ...] = ()
        lost = 0
        while True:
            again = f"-again-{len(void)}" if void else ""
            before = (*order.before, *void)
            run = self._run(replace(order, before=before, log=f"{order.log}{again}"), tree, lane, variables)
            if lost < self._settings.ray_retries and run.crash is not None and run.crash.kind is CrashClass.LOST:
                lost += 1
                void += (replace(run, inconclusive=run.crash.message),)
                self._watcher.say(f"{order.experiment.number:04d}: {run.crash.message}: the run starts again")
                continue
            why, is_void = self._doubt(run, order, before)
            if not why:
                self._in_doubt = 0
            if not is_void:
                return *void, run
            void += (replace(run, inconclusive=why),)
            if max(self._in_doubt, len(void) - lost) >= self._settings.inconclusive:
                self._watcher.end(
                    f"{self._settings.inconclusive} runs in a row were inconclusive, the last because {why}: fix this "
                    "and rerun the same command; with --autoresearch-inconclusive 0 every run counts",
                    failed=True,
                )
                raise Stopped(why)
            self._watcher.say(f"{order.experiment.number:04d}: {why}: the run is repeated")

    def _doubt(self, run: Run, order: _Order, before: tuple[Run, ...]) -> tuple[str, bool]:
        """Why the run is in doubt, or empty; and whether the run is inconclusive and must be repeated."""
        if not self._settings.inconclusive:
            return "", False
        baseline, head = self._ledger.baseline, self._ledger.incumbent
        first = baseline.runs if baseline else before
        if why := disturbed(run, first):
            self._in_doubt += 1
            return why, True
        if order.role is Role.AUDIT:  # a quoted result must not be redrawn for a reason that the program can cause
            return "", False
        records = self._ledger.records
        usual = (*first, *(replicates.runs_of(records, head.commit) if head else ()))
        why = unsteady(run, (*replicates.runs_of(records, order.commit), *before), usual)
        if why:
            self._in_doubt += len(order.excused) < 2
            order.excused.append(why)
        return why, len(order.excused) == 1 and bool(why)

    def _run(self, order: _Order, tree: Worktree, lane: int, variables: Mapping[str, str]) -> Run:
        experiment, which = order.experiment, "" if order.log == "train" else order.log
        self._artifacts.make_experiment(experiment.number)
        log = self._artifacts.log(experiment.number, order.log)

        def note(now: Progress) -> None:
            now = replace(now, run=which, runs=order.runs)
            if order.borrowed is None:
                self._watcher.note(experiment.number, now)
            else:
                order.borrowed.check()
                self._watcher.note_beside(experiment.number, lane, now)

        began = round(time.time(), 3)
        run = self._place.run(self._spec(order, lane, variables), tree, log, note, self._watcher.say)
        other = "" if order.commit == experiment.commit else order.commit
        return replace(run, variables=variables, role=order.role, commit=other, block=self._time, began_at=began)

    def _spec(self, order: _Order, lane: int, variables: Mapping[str, str]) -> RunSpec:
        experiment, baseline, head = order.experiment, self._ledger.baseline, self._ledger.incumbent
        # A later run of the baseline is not calibrated again, and has no recorded baseline that could limit it.
        scored = any(run.metric is not None for run in order.before)
        known = experiment if order.role is Role.BASELINE and scored else baseline
        given = self._scorer_input(order, known, head.commit if head else "")
        race = None
        if order.racer is not None and order.bar is not None:
            race = Race(order.racer, order.seed, order.bar, is_spared(experiment.number))
        return RunSpec(
            order.commit, order.seed, lane, experiment.limits, variables, given.variables, given.reads, given.writes,
            baseline.commit if baseline else order.commit, race,
        )  # fmt: skip

    def _scorer_input(self, order: _Order, known: Experiment | None, head: str) -> ScorerInput:
        """What the scorer gets, beside the model."""
        below = order.below
        if below is not None and order.role in _DRAWN and secrets.randbelow(_DRAWN_ONE_IN) == 0:
            below = order.experiment.direction.worst
        if order.role is Role.AUDIT and known is not None:
            given = self._files.for_audit(order.commit, known, below)
            return replace(given, variables={**given.variables, **self._harness.audit_environment})
        return self._files.input(order.commit, known, head, below)


def _key(wanted: Wanted) -> Wanted:
    """The name of a run: how good it has to be is known only when the rule asks for it."""
    return replace(wanted, below=None, bar=None)


def _unasked(run: Run) -> Run:
    """A run that the rule did not ask for in the end: evidence for later, which does not count for this verdict.

    A run of the incumbent is evidence as any other. A model that the scorer has found out is not kept.
    """
    rejected = run.crash is not None and run.crash.kind is CrashClass.REJECTED
    return run if rejected or run.role is Role.INCUMBENT else replace(run, role=Role.EXTRA)
