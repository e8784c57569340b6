"""One campaign in one session: its parts, its limits, and the recording of verdicts.

`Campaign.conduct` runs on a lane's thread; everything else runs on the main thread. Knows nothing about items, reports
or pytest.
"""

from __future__ import annotations

import contextlib
import time
from collections import deque
from collections.abc import Callable, Container
from dataclasses import replace

from pytest_autoresearch.campaign.batches import Batches
from pytest_autoresearch.campaign.common import Common, Hooks
from pytest_autoresearch.campaign.free_lanes import FreeLanes
from pytest_autoresearch.campaign.in_flight import Flights, InFlight
from pytest_autoresearch.campaign.kept_artifacts import KeptArtifacts
from pytest_autoresearch.campaign.lifecycle import Lifecycle
from pytest_autoresearch.campaign.pace import Pace
from pytest_autoresearch.campaign.preview import Preview, preview
from pytest_autoresearch.campaign.session_clock import SessionClock
from pytest_autoresearch.campaign.view import CampaignView
from pytest_autoresearch.campaign.work_queue import WorkQueue
from pytest_autoresearch.core.errors import AutoresearchError, GitError, UserError
from pytest_autoresearch.core.experiment import (
    BASELINE,
    Decision,
    Experiment,
    Proposal,
    Usage,
    Verdict,
)
from pytest_autoresearch.core.history import chain, untried
from pytest_autoresearch.core.run import Limits, Progress
from pytest_autoresearch.keeprule import audit
from pytest_autoresearch.keeprule.audit import Audit
from pytest_autoresearch.keeprule.replicates import unmoved
from pytest_autoresearch.ledger.ledger import Ledger
from pytest_autoresearch.ledger.ratchet import Ratchet
from pytest_autoresearch.measure.auditor import Auditor
from pytest_autoresearch.measure.conditions import note_packages, setting_of
from pytest_autoresearch.measure.integrity import Frozen, remove_bytecode
from pytest_autoresearch.measure.limits import limits_of
from pytest_autoresearch.measure.runs import RunMaker
from pytest_autoresearch.measure.scorer_files import ScorerFiles
from pytest_autoresearch.measure.setup import Equipment
from pytest_autoresearch.proposers.base import Proposer
from pytest_autoresearch.proposers.choice import Choice, Surroundings
from pytest_autoresearch.runners.agent import AgentRunner
from pytest_autoresearch.settings import Settings

_SUSPICIOUS = 3  # edits in a row without any effect on a noisy metric


class Campaign:
    """The state of one campaign in this session.

    Attributes:
        ledger: Every judged experiment.
        lanes: Where runs go. Others can have the devices after `release`.
        not_taken: The GPUs or nodes that are no lanes, each with the reason.
        where: Where the lanes are, in words, if they are not on this machine; else empty.
        flights: The experiments under way.
        why_over: Why no more experiments start; empty if only the number of slots limits them.
        failed: Whether the session stopped because the proposer or the machine failed.
        pace: How far the session is.
        news: Messages for the person who watches, oldest first. The terminal removes what it has shown.
    """

    def __init__(
        self, settings: Settings, ratchet: Ratchet, records: list[Experiment], equipment: Equipment, hooks: Hooks,
        choice: Choice,
    ) -> None:  # fmt: skip
        harness = self.harness = equipment.harness
        self.settings = settings
        self.ratchet = ratchet
        self.setting = setting_of(settings, ratchet, equipment)
        self.why_over = ""
        self.failed = False
        self._was_paused = False
        self.news: deque[str] = deque()
        self.flights = Flights()
        self.lanes, self.not_taken = equipment.taken.lanes, equipment.taken.left
        self.where = equipment.taken.words
        self.release = equipment.taken.release
        artifacts = settings.campaign_artifacts(ratchet.tag)
        self._clock = SessionClock(settings.hours, artifacts.stop, artifacts.pause)
        self._place = equipment.place(settings, ratchet)
        self._agents = AgentRunner(equipment.agents, harness.hidden)
        like = Experiment(
            BASELINE, ratchet.tag, "", "", "", Proposal(""), limits=Limits(self.budget, 0, 0),
            metric_name=settings.metric, direction=settings.direction, setting=self.setting,
        )  # fmt: skip
        self.ledger = Ledger(ratchet, records, settings.root / "results.tsv", like)
        self._files = ScorerFiles(ratchet.home / "losses" / ratchet.tag)
        self._runs = RunMaker(settings, ratchet, harness, self.ledger, self._place, self._files, self)
        self._kept_artifacts: KeptArtifacts | None = None
        self._free = FreeLanes(len(self.lanes), self._no_more_runs, self._holds)
        self._choice = choice
        self._queue = WorkQueue(self._make_proposer)
        self.pace = Pace(
            settings, harness, self.ledger, self.flights, len(self.lanes), self._clock, lambda: self._queue.usage
        )
        self._common = Common(settings, ratchet, harness, self.ledger, self.flights, like, hooks)
        self.batches = Batches(
            settings.batch, ratchet, self.ledger, self.flights, self._runs, self._free, harness.prior(settings.metric)
        )
        self._lifecycle = Lifecycle(self._common, self._queue, self._runs, self, self._free, self.batches)

    def check(self) -> None:
        """Check that the campaign can continue here, without joining it.

        Raises:
            UserError: It cannot.
        """
        self.ledger.check_comparable()
        self.ratchet.check_head()

    def _make_proposer(self) -> Proposer:
        return self._choice.make(Surroundings(self._agents, self._clock, self.budget))

    def preview(self) -> Preview:
        """What the first experiment after the baseline and what is owed would try."""
        common = replace(self._common, like=replace(self._common.like, limits=self.limits(None)))
        number = max((record.number for record in self.ledger.records), default=BASELINE) + 1
        page = (self.settings.root / "program.md").read_text("utf-8", "replace")
        return preview(common, self._make_proposer(), number, page, len(self.lanes))

    def owed(self) -> list[str]:
        """The descriptions of the candidates that an earlier session committed and did not judge."""
        return [one.proposal.short for one in untried(self.ledger.records, self.ratchet.waiting())]

    def open(self) -> None:
        """Recover what a killed session left, and queue its candidates without a verdict."""
        trusted = [self.settings.root / path for path in self.settings.frozen]
        remove_bytecode(trusted)
        self._frozen = Frozen([*trusted, *self.harness.data_files])
        self.ledger.open()
        if self.settings.keep_artifacts is not None:
            records = self.ledger.records
            self._kept_artifacts = KeptArtifacts(self.settings.keep_artifacts, self.settings.artifacts, records)
        self._clock.forget_requests()
        elsewhere = {program for other in self.ratchet.presence.earlier for program in other.programs}
        left = (one for one in self.ratchet.waiting() if one.program not in elsewhere)
        owed = untried(self.ledger.records, left)
        if self.settings.proposer == "checkout":
            self._queue.know(owed)
        else:
            self._queue.owe(owed)
            self._queue.owe(self.batches.combinations(self.ledger.records, owed))

    def close(self, held: Container[int] = ()) -> None:
        """Leave the campaign. Candidates without a verdict are noted for the next session.

        Args:
            held: Worktrees whose thread still runs. They are kept until the process ends.
        """
        with contextlib.suppress(GitError):  # an earlier call has already reported the failure of git
            for flight in self.flights:
                if flight.candidate is not None:
                    self.ratchet.leave_waiting(flight.account(flight.candidate))
                elif flight.waiting:  # it failed, and its proposer was asked once more
                    self.ratchet.drop_waiting(flight.waiting)
        self._lifecycle.release(held)
        self._clock.forget_requests()
        self.ratchet.close()

    def over(self) -> bool:
        """Whether no more experiments may start."""
        if not self.why_over and (why := self._limit_reached()):
            self.why_over = why
            self._free.look_again()  # those that a pause holds
        return bool(self.why_over)

    def _limit_reached(self) -> str:
        """The user's limit that is reached, in a sentence; empty if none is."""
        total = self.settings.total
        if total is not None:
            under_way = self.flights.numbers | {record.number for record in self.ledger.records}
            if len(under_way - {BASELINE}) >= total:
                return f"the campaign has its {total} experiments (--autoresearch-total)"
        return self._no_more_runs()

    def _holds(self) -> bool:
        """Whether no run may begin now, but later: a session that ends holds nobody."""
        return self._clock.is_paused and not self._no_more_runs()

    def _no_more_runs(self) -> str:
        """Why no run may begin, though its experiment has a number and a proposal; empty if it may."""
        if self.failed:
            return self.why_over
        if over := self._clock.over:
            return over
        target = self.settings.target
        best = self.ledger.incumbent
        if target is not None and best is not None and self.settings.direction.gain(best.metric, target) >= 0:
            return f"{best.metric_name} {best.metric:.6f} has reached {target:g} (--autoresearch-target)"
        return ""

    @property
    def is_paused(self) -> bool:
        """Whether no experiment may start now, because the user asked for a pause."""
        if self._clock.is_paused == self._was_paused:
            return self._was_paused
        self._was_paused = not self._was_paused
        self._free.look_again()
        self.say("paused: `autoresearch resume` goes on" if self._was_paused else "resumed")
        return self._was_paused

    @property
    def view(self) -> CampaignView:
        """What the user's hooks see of the campaign now."""
        return self._common.view

    @property
    def usage(self) -> Usage:
        """What this session's proposals have used so far."""
        return self._queue.usage

    @property
    def budget(self) -> float:
        """Training seconds of one run."""
        return limits_of(self.settings, self.harness).budget_seconds

    @property
    def at_once(self) -> int:
        """How many experiments may be under way: one for each lane, and those that are proposed ahead.

        Only a proposer that takes time and hears of conflicts proposes ahead. Others are asked when a lane is free,
        because then they know more, and a patch may need the one before.
        """
        if self.batches.is_measured:
            return 0
        looks_ahead = self._queue.listens and not self._common.hooks.proposes
        return max(len(self.lanes) + (self.settings.ahead if looks_ahead else 0), self.batches.size)

    def take(self, number: int, place: int) -> InFlight:
        """The number is under way from now on, in the worktree of this place."""
        if number != BASELINE:
            self._queue.expect(number)
        return self.flights.take(number, place)

    def free_lane(self, flight: InFlight) -> None:
        """The experiment has its verdict, so the next one may have its lane."""
        if flight.lane is not None:
            self._free.give(flight.lane)
            flight.lane = None

    def conduct(self, flight: InFlight, deadline_seconds: float | None) -> Experiment | None:
        """One experiment up to its result, on the lane's thread. See `Lifecycle.conduct`."""
        return self._lifecycle.conduct(flight, self.limits(deadline_seconds))

    def interrupt(self) -> None:
        """End every running process now. The lanes get a `Stopped` error."""
        self._clock.close()
        self._free.close()
        self.batches.close()
        self._agents.close()
        self._place.close()

    # ------------------------------------------------------------------------------------- measure.runs.Watcher

    def note(self, number: int, progress: Progress) -> None:
        """The experiment's run is here now."""
        self.flights.take(number, 0).progress = progress  # an audit's experiments are first seen here

    def note_beside(self, number: int, lane: int, progress: Progress | None) -> None:
        """The experiment's run on the borrowed lane is here now; None: the run is over."""
        beside = self.flights.take(number, 0).beside
        if progress is None:
            beside.pop(lane, None)
        else:
            beside[lane] = progress

    def say(self, text: str) -> None:
        """Keep a sentence for the person who watches."""
        self.news.append(text)

    def end(self, why: str, failed: bool = False) -> None:
        """Start nothing more; the first reason stands."""
        self.why_over = self.why_over or why
        self.failed = self.failed or failed

    def audit(self, stopped: Callable[[], bool]) -> None:
        """Measure the campaign's first and last program again. A failure becomes a notice.

        Args:
            stopped: Asked several times a second whether to end the runs.
        """
        auditor = Auditor(
            self.settings, self.ratchet, self.harness, self.setting, self.ledger, self._place, watcher=self
        )
        under_way = self.flights.numbers
        try:
            self.say(audit.sentence(auditor.conduct(audit.RUNS, self.say, stopped)))
        except AutoresearchError as error:
            self.ledger.notices.append(f"not audited: {error}")
        finally:
            for number in self.flights.numbers - under_way:
                self.forget(number)

    def audited(self) -> Audit | None:
        """The audit of the first and the current program; None if there is none that can be read."""
        try:
            return audit.of(self.ratchet.audits(), chain(self.ledger.records))
        except AutoresearchError:
            return None

    def limits(self, deadline_seconds: float | None) -> Limits:
        """What a run may use. The baseline's startup time sets the allowance of later runs."""
        return limits_of(self.settings, self.harness, deadline_seconds, self.ledger.baseline)

    # --------------------------------------------------------------------------------------------- after the runs

    def is_overtaken(self, experiment: Experiment) -> bool:
        """Whether it beats a head that is no longer the head, so that it has to be conducted again on the new one."""
        return _beats(experiment) and experiment.base != self.ledger.base()

    def gives_way(self, experiment: Experiment) -> bool:
        """Whether it would be kept, but another experiment was overtaken so often that its verdict comes first."""
        return _beats(experiment) and self.flights.right_of_way.waits(experiment.number)

    @property
    def may_run(self) -> bool:
        """Whether a run may begin."""
        return not self._no_more_runs()

    def against_best(self, experiment: Experiment) -> Experiment:
        """The experiment with the metric that it has to beat.

        If another lane or session has moved the branch during the run, that is the new head's metric: a candidate that
        beats it is measured again beside the new head.
        """
        incumbent = self.ledger.incumbent
        if experiment.share is not None:
            return experiment
        if experiment.decision.best is not None and incumbent is not None and incumbent.commit == experiment.base:
            return experiment
        now = incumbent.metric if incumbent else None
        return replace(experiment, decision=Decision(best=now, rule=experiment.decision.rule))

    def record(self, experiment: Experiment, ruling: Verdict) -> Experiment:
        """Make a verdict permanent.

        Returns:
            The experiment as git recorded it: possibly with another number, or as stale.

        Raises:
            GitError: Git failed; nothing was recorded.
            UserError: A file that the metric depends on was changed; nothing was recorded.
        """
        if changed := self._frozen.changed():
            raise UserError(
                f"{changed[0]} was changed while the session ran, so its results cannot be compared: restore it and "
                "rerun the same command"
            )
        judged = self.ledger.record(experiment.judged(ruling, time.time()))
        if judged.is_owed:
            self._queue.owe([judged])
        if judged.refutes:
            now = self.ledger.incumbent
            self.say(f"{judged.refutes[:7]} is taken back; the best is {now!r} now" if now else "")
        if (count := unmoved(self.ledger.records)) >= _SUSPICIOUS:
            self.say(
                f"{judged.number:04d}: the last {count} edits gave exactly the {judged.metric_name} of the best on the "
                "same seed: check that the training command runs the edited files"
            )
        note_packages(self.settings.campaign_artifacts(self.ratchet.tag), self.setting)
        flight = self.forget(experiment.number)
        if judged.share is not None:
            self._queue.owe(self.batches.combinations(self.ledger.records))
        if flight is not None and flight.waiting not in ("", judged.commit):
            self.ratchet.drop_waiting(flight.waiting)
        baseline = self.ledger.baseline
        self._files.keep_only(self._compared() | ({baseline.commit} if baseline else set()))
        if self._kept_artifacts is not None and (gone := self._kept_artifacts.add(judged)):
            numbers = ", ".join(f"{number:04d}" for number in gone)
            self.say(f"the files of {numbers} were deleted (--autoresearch-keep-artifacts)")
        return judged

    def forget(self, number: int) -> InFlight | None:
        """The experiment is no longer under way; its value, if it was."""
        self._lifecycle.forget(number)
        self.batches.ended(number)
        return self.flights.forget(number)

    def _compared(self) -> set[str]:
        """The commits in flight, and those that the next candidate is compared with."""
        best = self.ledger.incumbent
        heads = {best.commit, best.base} if best else set()
        return heads | {candidate.commit for candidate in self.flights.candidates}


def _beats(experiment: Experiment) -> bool:
    """Whether it beats the head that it was measured against; a proposal of a batch is not kept itself."""
    if experiment.number == BASELINE or experiment.share is not None:
        return False
    return experiment.measured and not experiment.refutes and experiment.gain > experiment.margin
