"""One campaign: what it is made of, what became of its experiments, when to stop.

`Campaign.conduct` runs on a lane's thread; everything else is called from the main thread. It is told what the verdict
is; it knows nothing of items, reports or pytest.
"""

from __future__ import annotations

import contextlib
import shlex
import shutil
import time
from collections import deque
from collections.abc import Callable, Container, Mapping
from dataclasses import replace

from pytest_autoresearch.campaign.lifecycle import Life
from pytest_autoresearch.campaign.work_queue import Attempts, Hooks
from pytest_autoresearch.core.errors import AutoresearchError, GitError, UserError
from pytest_autoresearch.core.experiment import (
    BASELINE,
    Decision,
    Experiment,
    Proposal,
    Reason,
    Setting,
    Usage,
    Verdict,
)
from pytest_autoresearch.core.history import chain, untried
from pytest_autoresearch.core.run import Limits, Progress
from pytest_autoresearch.keeprule import audit
from pytest_autoresearch.keeprule.audit import Audit
from pytest_autoresearch.ledger.ledger import Ledger
from pytest_autoresearch.ledger.ratchet import Ratchet
from pytest_autoresearch.measure.auditor import Auditor
from pytest_autoresearch.measure.harness import Harness
from pytest_autoresearch.measure.integrity import Frozen
from pytest_autoresearch.measure.scorer_files import ScorerFiles
from pytest_autoresearch.proposers.base import Proposer, Terms
from pytest_autoresearch.runners.base import Runner
from pytest_autoresearch.settings import Settings

LEAST_STARTUP_SECONDS = 30.0


def limits_of(
    settings: Settings, harness: Harness, deadline_seconds: float | None, baseline: Experiment | None = None
) -> Limits:
    """What a run may use.

    Args:
        deadline_seconds: Its hard limit; None for the usual one.
        baseline: Whose own startup sets the allowance of the others; None where there is none yet.
    """
    budget = settings.budget_seconds or harness.budget_seconds
    memory = settings.memory_limit_mb or harness.memory_limit_mb
    deadline = deadline_seconds or max(2 * budget, budget + 120)
    startup = max(LEAST_STARTUP_SECONDS, deadline - budget)
    if baseline is not None:
        startup = max(LEAST_STARTUP_SECONDS, 2 * max(run.startup_seconds for run in baseline.own_runs))
    return Limits(budget, min(startup, deadline), deadline, memory)


class Campaign:
    """The state of one campaign in this session.

    Attributes:
        ledger: Every judged experiment.
        progress: Everything under way, and where it is, by number.
        why_over: Why nothing more is started, where it is not the number of slots.
        failed: Whether that is because the proposer cannot go on.
        news: Sentences for the person who watches, as they come; whoever shows them takes them away.
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
        end_agents: Callable[[], None] = lambda: None,
    ) -> None:
        self.settings = settings
        self.ratchet = ratchet
        self.harness = harness
        self._runner = runner
        self._end_agents = end_agents
        self.progress: dict[int, Progress] = {}
        self.setting = Setting(
            profile=harness.profile,
            hardware_key=harness.hardware_key,
            harness_hash=ratchet.tree_hash(settings.frozen) if settings.frozen else "",
            data_hash=harness.data_hash,
            sandbox=sandbox,
        )
        self.why_over = ""
        self.failed = False
        self.news: deque[str] = deque()
        self._began = time.monotonic()
        like = Experiment(
            BASELINE, ratchet.tag, "", "", "", Proposal(""), limits=Limits(self.budget, 0, 0),
            metric_name=settings.metric, direction=settings.direction, setting=self.setting,
        )  # fmt: skip
        self.ledger = Ledger(ratchet, records, settings.root / "results.tsv", like)
        terms = Terms(
            settings.metric, settings.direction, self.limits(None), shlex.join(settings.command),
            harness.hardware_key or harness.device, harness.interface, harness.score is not None,
        )  # fmt: skip
        prior = harness.prior(settings.metric)
        self._attempts = Attempts(settings, ratchet, self.ledger, like, terms, hooks, make_proposer, prior)
        trusted = [settings.root / path for path in settings.frozen]
        for folder in (inside for path in trusted for inside in path.rglob("__pycache__")):
            shutil.rmtree(folder, ignore_errors=True)  # compiled when, and from what, nobody knows
        self._frozen = Frozen([*trusted, *harness.data_files])
        self._losses = ScorerFiles(ratchet.home / "losses" / ratchet.tag)
        self._life = Life(settings, ratchet, harness, self.ledger, self._attempts, runner, self._losses, self)

    def open(self) -> None:
        """Take part: recover what a killed session left, and take up what it owes."""
        self.ledger.open()
        owed = untried(self.ledger.records, self.ratchet.waiting())
        if self.settings.proposer == "checkout":
            self._attempts.know(owed)
        else:
            self._attempts.owe(owed)

    def close(self, held: Container[int] = ()) -> None:
        """Leave; a candidate that was committed and got no verdict is noted for the next session.

        Args:
            held: Lanes whose thread still runs: their trees are theirs until the process is gone.
        """
        with contextlib.suppress(GitError):  # where git fails, this is not the first to say so
            for experiment in self._attempts.unjudged():
                self.ratchet.leave_waiting(experiment)
        self._life.release(held)
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
    def usage(self) -> Usage:
        """What this session's proposals have used so far."""
        return self._attempts.usage

    @property
    def budget(self) -> float:
        """Training seconds of one run."""
        return self.settings.budget_seconds or self.harness.budget_seconds

    def conduct(self, number: int, lane: int, deadline_seconds: float | None) -> Experiment | None:
        """One experiment up to its result; what is left is to judge it. See `Life.conduct`."""
        return self._life.conduct(number, lane, self.limits(deadline_seconds))

    def interrupt(self) -> None:
        """End every process that is under way, now: their lanes hear that the session is over."""
        self._end_agents()
        self._runner.close()

    def end(self, why: str, failed: bool = False) -> None:
        """Start nothing more; the first reason stands."""
        self.why_over = self.why_over or why
        self.failed = self.failed or failed

    def audit(self, stopped: Callable[[], bool]) -> None:
        """Measure anew what the campaign has come to; why it could not be is a notice.

        Args:
            stopped: Asked several times a second; where it says yes, the runs are ended.
        """
        auditor = Auditor(
            self.settings, self.ratchet, self.harness, self.setting, self.ledger, self._runner, watcher=self
        )
        try:
            self.news.append(audit.sentence(auditor.conduct(audit.RUNS, self.news.append, stopped)))
        except AutoresearchError as error:
            self.ledger.notices.append(f"not audited: {error}")

    def audited(self) -> Audit | None:
        """The audit of what the branch has come to, where there is one that can be read."""
        try:
            return audit.of(self.ratchet.audits(), chain(self.ledger.records))
        except AutoresearchError:
            return None

    def take(self, number: int) -> None:
        """The number is under way from now on."""
        self.progress[number] = Progress("proposing")

    def limits(self, deadline_seconds: float | None) -> Limits:
        """What a run may use; the baseline's own startup sets the allowance of the others."""
        return limits_of(self.settings, self.harness, deadline_seconds, self.ledger.baseline)

    # --------------------------------------------------------------------------------------------- after the verdict

    def against_best(self, experiment: Experiment) -> Experiment:
        """The experiment beside what it has to beat: what it was measured beside, else the incumbent of this moment.

        Where another lane or session has moved the branch meanwhile, the new head is what counts, by its own number:
        what does not beat that is no better, and what does is measured again beside it.
        """
        incumbent = self.ledger.incumbent
        if experiment.decision.best is not None and incumbent is not None and incumbent.commit == experiment.base:
            return experiment
        now = incumbent.metric if incumbent else None
        return replace(experiment, decision=Decision(best=now, rule=experiment.decision.rule))

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
        if judged.verdict is not None and judged.verdict.reason == Reason.STALE:
            self._attempts.owe([judged])
        self.forget(experiment.number)
        compared = self._attempts.compared()
        self._losses.keep_only(compared)
        self._life.keep_compiled(compared)
        return judged

    def forget(self, number: int) -> None:
        """The experiment is no longer under way."""
        self._attempts.forget(number)
        self.progress.pop(number, None)
