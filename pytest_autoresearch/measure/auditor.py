"""Conducts an audit: makes its runs one after the other, in the order of `audit.turns`, and records the audit.

Blocks the calling thread and checks there whether to stop. Knows nothing of the command line or pytest.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Iterable
from dataclasses import replace

from pytest_autoresearch.core import conditions
from pytest_autoresearch.core.errors import UserError
from pytest_autoresearch.core.experiment import Experiment, Proposal
from pytest_autoresearch.core.history import chain
from pytest_autoresearch.core.run import CrashClass, Run
from pytest_autoresearch.core.setting import Setting
from pytest_autoresearch.core.text import one_line
from pytest_autoresearch.keeprule import verdict
from pytest_autoresearch.keeprule.audit import LEAST_RUNS, Audit, AuditSide, Rows, Turn, turns
from pytest_autoresearch.ledger.ledger import Ledger
from pytest_autoresearch.ledger.ratchet import Ratchet
from pytest_autoresearch.ledger.worktree import Worktree
from pytest_autoresearch.measure.harness import Harness
from pytest_autoresearch.measure.integrity import Frozen, remove_bytecode
from pytest_autoresearch.measure.lane_threads import interruptible
from pytest_autoresearch.measure.place import Place
from pytest_autoresearch.measure.runs import RunMaker, Watcher
from pytest_autoresearch.measure.scorer_files import ScorerFiles
from pytest_autoresearch.settings import Settings

_INTERRUPTED = "the audit was interrupted, and nothing was recorded"


class Auditor:
    """Audits the campaign of a ledger.

    Args:
        setting: The conditions of measurements in this session.
        watcher: Follows the runs.
    """

    def __init__(
        self, settings: Settings, ratchet: Ratchet, harness: Harness, setting: Setting, ledger: Ledger, place: Place,
        watcher: Watcher,
    ) -> None:  # fmt: skip
        self._settings = settings
        self._ratchet = ratchet
        self._setting = setting
        self._ledger = ledger
        self._place = place
        self._watcher = watcher
        self._rows = Rows.AUDIT if harness.score and harness.audit_environment else Rows.VERDICT
        self._data = harness.data_files
        self._losses = ScorerFiles(ratchet.home / "losses" / ratchet.tag)
        self._run_maker = RunMaker(settings, ratchet, harness, ledger, place, self._losses, watcher)

    def conduct(self, runs: int, say: Callable[[str], None], stopped: Callable[[], bool]) -> Audit:
        """Make the runs and record the audit.

        Args:
            runs: The number of runs of each commit.
            say: Called with one line for each run.
            stopped: Called several times a second; if it returns True, the audit ends and nothing is recorded.

        Raises:
            UserError: The campaign cannot be audited here.
            Stopped: `stopped` returned True, or too many runs in a row were inconclusive.
            AutoresearchError: Git or the sandbox failed.
        """
        line = chain(self._ledger.records)
        tag = self._ratchet.tag
        if len(line) < 2:
            raise UserError(f"nothing was kept in {tag}, so there is nothing to audit")
        check_conditions(self._settings, self._ratchet, self._setting, line[-1])
        last = line[-1]
        first = replace(line[0], limits=last.limits)  # the baseline's own run had another startup limit
        trusted = [self._settings.root / path for path in self._settings.frozen]
        remove_bytecode(trusted)
        with self._ratchet.alone():
            frozen = Frozen([*trusted, *self._data])
            plan = turns(runs, self._seeds())
            say(_opening(first, last, runs))
            tree = self._ratchet.worktree(0)
            try:
                made = self._make(plan, {AuditSide.FIRST: first, AuditSide.LAST: last}, tree, say, stopped)
            finally:
                self._losses.end_audit()
                tree.release()
            if changed := frozen.changed():
                raise UserError(f"{changed[0]} changed while the audit ran: restore it and rerun the same command")
            if (rejected := _rejected(made, last)) is not None:
                raise self._take_back(line[-2], last, rejected)
            done = Audit(
                self._ratchet.tag, first.commit, last.commit, last.number, last.metric_name, last.direction,
                self._rows, made, last.limits, self._setting, time.time(),
            )  # fmt: skip
            self._ratchet.record_audit(done)
        return done

    def _take_back(self, before: Experiment, last: Experiment, rejected: Run) -> UserError:
        """Record that the last keep was rejected, which moves the branch back to the keep before it."""
        assert rejected.crash is not None
        number = max(record.number for record in self._ledger.records) + 1
        said = Proposal(f"take back {last.number:04d}, which an audit rejected: {last.proposal.description}")
        experiment = Experiment(
            number, self._ratchet.tag, before.commit, before.commit, before.tree, said, runs=(rejected,),
            limits=last.limits, metric_name=last.metric_name, direction=last.direction, setting=self._setting,
            refusal=rejected.crash,
        )  # fmt: skip
        recorded = self._ledger.record(experiment.judged(verdict.crashed(rejected.crash), time.time()))
        return UserError(
            f"{last.commit[:7]} ({last.number:04d}) was rejected in the audit and is taken back, which record "
            f"{recorded.number:04d} says ({rejected.crash.message}): audit the program before it, {before.commit[:7]}, "
            "with the same command"
        )

    def _seeds(self) -> list[int]:
        """The seeds of all runs of the campaign and of its audits."""
        measured = [run for record in self._ledger.records for run in record.runs]
        return [run.seed for run in (*measured, *(run for one in self._ratchet.audits() for run in one.runs))]

    def _make(
        self, plan: tuple[Turn, ...], sides: dict[AuditSide, Experiment], tree: Worktree, say: Callable[[str], None],
        stopped: Callable[[], bool],
    ) -> tuple[Run, ...]:  # fmt: skip
        """Make the runs of the plan; stops early if too many runs crash for a comparison."""
        made: list[Run] = []
        for number, turn in enumerate(plan, 1):
            experiment = sides[turn.side]
            # The baseline is trusted; every run of the last commit is probed, whatever its metric.
            below = experiment.direction.worst if turn.side is AuditSide.LAST else None
            make = _maker(self._run_maker, experiment, turn, below, tuple(made), tree)
            runs = interruptible(make, stopped, self._place.close, _INTERRUPTED)
            made += (replace(run, commit=experiment.commit) for run in runs)
            say(f"{number}/{len(plan)} {turn.side}: {_said(made[-1], experiment)}")
            if _rejected(made[-1:], sides[AuditSide.LAST]) is not None:
                break
            counted = [run.commit for run in made if run.metric is not None and not run.inconclusive]
            ahead = [sides[later.side].commit for later in plan[number:]]
            if any((counted + ahead).count(side.commit) < LEAST_RUNS for side in sides.values()):
                break
        return tuple(made)


def check_conditions(settings: Settings, ratchet: Ratchet, setting: Setting, last: Experiment) -> None:
    """Check that this process measures under the conditions of the campaign's last keep.

    Raises:
        UserError: It does not; says what to restore.
    """
    if (settings.metric, settings.direction) != (last.metric_name, last.direction):
        raise UserError(
            f"the campaign {ratchet.tag} was measured with the metric {last.metric_name}, {last.direction}: "
            "restore these settings"
        )
    for difference in conditions.of_settings(last.setting, setting):
        raise UserError(
            f"the campaign {ratchet.tag} was measured with other {difference}: measure it under the same conditions"
        )
    if dirty := ratchet.dirty(settings.frozen) if settings.frozen else []:
        raise UserError(f"{dirty[0]} decides what is measured and has uncommitted changes: restore it first")


def _rejected(runs: Iterable[Run], last: Experiment) -> Run | None:
    """The run of the last commit in which the scorer rejected it; None if there is none."""
    found = (run for run in runs if run.commit == last.commit and run.crash is not None)
    return next((run for run in found if run.crash and run.crash.kind is CrashClass.REJECTED), None)


def _maker(
    run_maker: RunMaker, experiment: Experiment, turn: Turn, below: float | None, made: tuple[Run, ...], tree: Worktree
) -> Callable[[], tuple[Run, ...]]:
    before = tuple(run for run in made if run.commit == experiment.commit)
    return lambda: run_maker.audit(experiment, turn.seed, below, before, tree)


def _opening(first: Experiment, last: Experiment, runs: int) -> str:
    seconds = [run.total_seconds for one in (first, last) for run in one.own_runs if run.metric is not None]
    minutes = 2 * runs * statistics.fmean(seconds) / 60 if seconds else 0.0
    return (
        f"auditing {last.tag}: {last.commit[:7]} ({last.number:04d}) against the baseline {first.commit[:7]}, "
        f"{runs} runs each" + (f", about {minutes:.0f} min" if minutes >= 1 else "")
    )


def _said(run: Run, experiment: Experiment) -> str:
    what = f"{experiment.commit[:7]}, seed {run.seed}"
    if run.metric is None:
        return f"{what}, crash: {one_line(str(run.crash))[:200]}"
    return f"{what}, measured"  # without the metric, so that nobody stops an audit that goes badly and starts another
