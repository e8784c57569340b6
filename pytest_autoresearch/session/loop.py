"""Our own `pytest_runtestloop`: lanes in, items out.

Lane threads conduct experiments; the main thread runs every hook, assertion and verdict. An item's protocol is entered
when its slot's result is there, in whatever order results arrive.
"""

from __future__ import annotations

import signal
import threading
import time
from collections import deque
from types import FrameType
from typing import Any

import pytest

from pytest_autoresearch.campaign.campaign import Campaign
from pytest_autoresearch.campaign.in_flight import InFlight
from pytest_autoresearch.core.errors import Stopped
from pytest_autoresearch.core.experiment import BASELINE, Experiment, Verdict
from pytest_autoresearch.core.run import Progress
from pytest_autoresearch.reports.position import Position
from pytest_autoresearch.session.judge import Judge
from pytest_autoresearch.session.main_thread import RAISED, MainThread
from pytest_autoresearch.session.measured import Measured
from pytest_autoresearch.session.outcome import Outcome
from pytest_autoresearch.session.release import Release
from pytest_autoresearch.session.selection import check_selected, skip_of
from pytest_autoresearch.session.slots import SLOT, Slot, Slots
from pytest_autoresearch.session.timeouts import Deadlines
from pytest_autoresearch.session.views import Views

_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
_TICK_SECONDS = 0.5  # an untimed wait can miss a signal that comes between the last check and the wait
_GOODBYE_SECONDS = 4.0  # a CI runner kills 7.5 s after its first signal


class Loop:
    """One session of a campaign."""

    def __init__(
        self, config: pytest.Config, campaign: Campaign, slots: Slots, main: MainThread, judge: Judge, outcome: Outcome,
        views: Views,
    ) -> None:  # fmt: skip
        self._config = config
        self._campaign = campaign
        self._slots = slots
        self._main = main
        self._judge = judge
        self._outcome = outcome
        self._views = views
        self._deadlines = Deadlines(config)
        places = max(len(campaign.lanes) + campaign.settings.ahead, campaign.batches.size)
        self._free = list(range(places - 1, -1, -1))
        self._waiting: deque[Slot] = deque()
        self._giving_way: dict[Slot, InFlight] = {}
        self._judging = False
        self._handlers: dict[signal.Signals, Any] = {}

    # ----------------------------------------------------------------------------------------------------- the loop

    @pytest.hookimpl(tryfirst=True)
    def pytest_runtestloop(self, session: pytest.Session) -> bool | None:
        options = self._config.option
        if options.collectonly or options.setuponly or options.setupplan:
            return None
        if session.testsfailed and not options.continue_on_collection_errors:
            return None  # pytest's own loop says so
        self._waiting.extend(self._slots.waiting(session.items))
        self._config.pluginmanager.register(self._deadlines, "autoresearch-deadlines")
        self._config.pluginmanager.register(self._judge, "autoresearch-judge")
        self._config.pluginmanager.register(Release(self._config), "autoresearch-release")
        self._listen()
        try:
            self._check_selected()
            self._run(session)
            self._audit(session)
        finally:
            self._close()
        return True

    def _check_selected(self) -> None:
        """Check that there is something to run, before anything is trained."""
        check_selected(self._config, self._slots, self._waiting)
        if self._waiting[0].number != BASELINE and self._campaign.ledger.baseline is None:
            raise pytest.UsageError(
                f"the campaign {self._campaign.ratchet.tag} has no baseline yet: select 0000 as well, or nothing"
            )

    def _run(self, session: pytest.Session) -> None:
        while True:
            self._start(session)
            self._campaign.batches.started()
            paused = self._campaign.is_paused and bool(self._waiting) and not self._campaign.over()
            if not paused and not self._at_work() and not self._giving_way and self._outcome.signal is None:
                return
            slot = self._main.wait(_TICK_SECONDS)
            if slot is not None:
                self._settle(slot, self._land(slot), session)
            for waiting, flight in list(self._giving_way.items()):
                del self._giving_way[waiting]  # it waits again, if it still has to
                self._settle(waiting, flight, session)
            if self._outcome.signal is not None:
                name = self._outcome.signal.name
                self._campaign.why_over = f"stopped by {name}; the same command goes on from here"
                raise session.Interrupted(f"stopped by {name}")
            self._show()

    def _settle(self, slot: Slot, flight: InFlight, session: pytest.Session) -> None:
        """Give the slot's experiment its verdict, unless that has to wait or the experiment is to be measured again."""
        right_of_way = self._campaign.flights.right_of_way
        if slot.experiment is not None and self._campaign.is_overtaken(slot.experiment):
            if self._campaign.may_run and self._outcome.signal is None:
                right_of_way.overtaken(slot.number)
                self._launch(slot, flight)  # on the same lane, if it still has it
            else:  # it is left to the next session: its runs say nothing about the present head
                right_of_way.ends(slot.number)
        elif slot.experiment is not None and self._outcome.signal is None and self._campaign.gives_way(slot.experiment):
            flight.progress = Progress("waiting for another verdict")
            self._giving_way[slot] = flight
            self._campaign.free_lane(flight)
        else:
            right_of_way.ends(slot.number)  # also if it has no verdict
            self._free.append(flight.place)
            self._finish(slot, session)
            # Not before the verdict: the next run begins on the head as it is then.
            self._campaign.free_lane(flight)
            self._views.checkpoint()

    def _at_work(self) -> list[InFlight]:
        """The experiments whose lane is at work."""
        return [flight for flight in self._campaign.flights if flight.thread is not None]

    def _land(self, slot: Slot) -> InFlight:
        """The slot's thread is done."""
        flight = next(flight for flight in self._at_work() if flight.number == slot.number)
        assert flight.thread is not None
        flight.thread.join()
        flight.thread = None
        return flight

    def _audit(self, session: pytest.Session) -> None:
        """Audit the campaign, if the user asked for it and this session kept something."""
        if not (self._campaign.settings.audit and self._outcome.kept) or self._campaign.failed:
            return

        def stopped() -> bool:
            self._show()
            return self._outcome.signal is not None

        self._campaign.audit(stopped)
        if self._outcome.signal is not None:
            self._campaign.why_over = (
                f"stopped by {self._outcome.signal.name} during the audit: rerun it with `autoresearch audit`"
            )
            raise session.Interrupted(f"stopped by {self._outcome.signal.name}")

    def _show(self) -> None:
        """Say where the session is, here and to whoever watches it."""
        self._views.show(self.where)

    @property
    def where(self) -> Position:
        """Where the session is."""
        judged = len(self._outcome.verdicts.keys() - {BASELINE})
        return self._campaign.pace.now(judged, None if self._slots.unlimited else len(self._waiting))

    def _start(self, session: pytest.Session) -> None:
        """Begin as many slots as there are lanes, and those that are proposed ahead; the baseline alone."""
        while (
            self._waiting
            and len(self._at_work()) + len(self._giving_way) < self._campaign.at_once
            and not any(flight.number == BASELINE for flight in self._at_work())
        ):
            if self._outcome.signal is not None or self._campaign.over() or self._campaign.is_paused:
                return
            slot = self._waiting.popleft()
            if not self._waiting and self._slots.unlimited:  # one slot is always ready: nextitem needs it
                self._waiting.extend(self._slots.more(session))
            if skip_of(self._config, slot) is not None:
                self._judge_slot(slot, session)
                if self._slots.unlimited:  # what skips this number skips every number
                    self._campaign.why_over = "a mark skips the rule"
                continue
            self._launch(slot, self._campaign.take(slot.number, self._free.pop()))

    def _launch(self, slot: Slot, flight: InFlight) -> None:
        """Conduct the slot's experiment on a thread of its own."""
        slot.experiment = None
        deadline = self._deadlines.of(slot)
        flight.thread = threading.Thread(target=self._conduct, args=(slot, flight, deadline), daemon=True)
        flight.thread.start()

    def _conduct(self, slot: Slot, flight: InFlight, deadline: float | None) -> None:
        """On a lane's thread."""
        try:
            slot.experiment = self._campaign.conduct(flight, deadline)
        except BaseException as error:
            slot.error = error
        self._main.done(slot)

    def _finish(self, slot: Slot, session: pytest.Session) -> None:
        """A lane is done with the slot."""
        if slot.experiment is None and slot.error is None:
            self._campaign.forget(slot.number)
            return
        if isinstance(slot.error, Stopped):
            return
        if slot.experiment is not None:
            slot.experiment = self._campaign.against_best(slot.experiment)
        if slot.experiment is not None and not (
            slot.experiment.crash or slot.experiment.hopeless or slot.experiment.refutes
        ):
            try:
                slot.ruling = self._config.hook.pytest_autoresearch_verdict(
                    campaign=self._campaign.view, experiment=Measured(slot.experiment)
                )
                if not isinstance(slot.ruling, Verdict | None):
                    raise TypeError(f"pytest_autoresearch_verdict returned {slot.ruling!r}: return a Verdict or None")
            except RAISED as error:
                slot.experiment, slot.error = None, error
        try:
            self._judge_slot(slot, session)
        finally:  # -x or a second signal may end the session here, and what is recorded is told all the same
            if slot.verdict is not None and slot.experiment is not None and slot.experiment.verdict is not None:
                self._tell(slot.experiment)
        if self._outcome.broken is None and slot.verdict is not None:
            slot.experiment = None  # a night's logs are not kept in memory

    def _tell(self, experiment: Experiment) -> None:
        try:
            self._config.hook.pytest_autoresearch_record(campaign=self._campaign.view, experiment=experiment)
        except RAISED as error:
            self._campaign.ledger.notices.append(
                f"pytest_autoresearch_record raised on {experiment!r}: {type(error).__name__}: {error}"
            )

    def _judge_slot(self, slot: Slot, session: pytest.Session) -> None:
        """Run the slot's items; the judge hears their reports."""
        for place, item in enumerate(slot.items):
            if place + 1 < len(slot.items):
                following: pytest.Item | None = slot.items[place + 1]
            else:
                # Whichever comes next, what it shares with this item must survive, and no more.
                running = [self._slots.of(flight.number) for flight in self._at_work()]
                ahead = [other.items[0] for other in (*running, *self._giving_way, *list(self._waiting)[:1])]
                following = min(ahead, key=lambda other: _shared(item, other), default=None)
            self._judging = True
            try:
                self._config.hook.pytest_runtest_protocol(item=item, nextitem=following)
            finally:
                self._judging = False
            if session.shouldfail:
                raise session.Failed(session.shouldfail)
            if session.shouldstop:
                raise session.Interrupted(session.shouldstop)

    # ------------------------------------------------------------------------------------------------------- ending

    def _listen(self) -> None:
        if threading.current_thread() is threading.main_thread():
            for number in _SIGNALS:
                if number is signal.SIGHUP and signal.getsignal(number) is signal.SIG_IGN:
                    continue  # nohup: the night goes on when the terminal is gone
                self._handlers[number] = signal.signal(number, self._on_signal)

    def _on_signal(self, number: int, frame: FrameType | None) -> None:
        """Raise nowhere but in a test body, and there only the second time: a lock could stay taken."""
        first = self._outcome.signal is None
        self._outcome.signal = self._outcome.signal or signal.Signals(number)
        self._main.wake()
        if not first and self._judging and not self._judge.recording:
            raise KeyboardInterrupt

    def _close(self) -> None:
        """End what is under way, and wait for it."""
        self._main.close()
        self._campaign.interrupt()
        deadline = time.monotonic() + _GOODBYE_SECONDS  # a thread that is late does not keep the process alive
        while time.monotonic() < deadline and self._alive():
            self._main.wait(0.05)
        self._views.clear()
        self._campaign.close({flight.place for flight in self._alive()})
        self._views.page.finish(hurried=self._outcome.signal is not None)

    def _alive(self) -> list[InFlight]:
        return [flight for flight in self._at_work() if flight.thread is not None and flight.thread.is_alive()]

    def restore_signals(self) -> None:
        """Give the signals back, once every report is written."""
        for number, handler in self._handlers.items():
            signal.signal(number, handler)
        self._handlers.clear()


def _shared(one: pytest.Item, other: pytest.Item) -> int:
    """How many nodes the two have in common from the session down."""
    pairs = zip(one.listchain(), other.listchain(), strict=False)
    return next((n for n, (a, b) in enumerate(pairs) if a is not b), len(one.listchain()))


def fixture_value(slot: Slot) -> Measured:
    """What the fixture `experiment` hands to a test; raises what kept it from having a metric."""
    if slot.error is not None:
        raise slot.error
    if slot.experiment is None:
        pytest.skip("no experiment was run for this slot")
    crash = slot.experiment.crash
    if crash is not None:
        log = slot.experiment.last_run.log if slot.experiment.last_run else ""
        pytest.fail(f"crash: {crash}\n{log}".rstrip(), pytrace=False)
    return Measured(slot.experiment)


def log_section(item: pytest.Item) -> None:
    """The end of the training log is the item's captured output."""
    slot = item.stash.get(SLOT, None)
    run = slot.experiment.last_run if slot is not None and slot.experiment is not None else None
    if slot is not None and run is not None and item is slot.items[0]:
        item.add_report_section("setup", "stdout", run.log)
