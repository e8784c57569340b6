"""Our own `pytest_runtestloop`: lanes in, items out.

Lane threads conduct experiments; the main thread runs every hook, assertion and verdict. An item's protocol is entered
when its slot's result is there, in whatever order results arrive.
"""

from __future__ import annotations

import contextlib
import queue
import signal
import threading
import time
from collections import deque
from collections.abc import Callable
from types import FrameType
from typing import Any

import pytest

from pytest_autoresearch.campaign.campaign import Campaign
from pytest_autoresearch.campaign.checkout import Followed
from pytest_autoresearch.core.errors import Stopped
from pytest_autoresearch.core.experiment import BASELINE, Experiment, Proposal, Verdict
from pytest_autoresearch.proposers.base import Context
from pytest_autoresearch.reports.page import PageWriter
from pytest_autoresearch.session.judge import Judge
from pytest_autoresearch.session.junit import Junit
from pytest_autoresearch.session.live import Live
from pytest_autoresearch.session.measured import Measured
from pytest_autoresearch.session.slots import SLOT, Slot, Slots
from pytest_autoresearch.session.terminal import Terminal
from pytest_autoresearch.session.timeouts import Deadlines

_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
_TICK_SECONDS = 0.5  # an untimed wait can miss a signal that comes between the last check and the wait
_RAISED = (Exception, pytest.fail.Exception, pytest.skip.Exception)  # by a user's hook: pytest's own are no Exception
_GOODBYE_SECONDS = 4.0  # a CI runner kills 7.5 s after its first signal


class _Errand:
    """A call that a lane wants made on the main thread."""

    def __init__(self, call: Callable[[], Any]) -> None:
        self._call = call
        self._done = threading.Event()
        self._answer: Any = None
        self._error: BaseException | None = None

    def run(self) -> None:
        try:
            self._answer = self._call()
        except _RAISED as error:
            self._error = error
        self._done.set()

    def cancel(self) -> None:
        self._error = Stopped("the session is ending")
        self._done.set()

    def wait(self) -> Any:
        self._done.wait()
        if self._error is not None:
            raise self._error
        return self._answer


class Loop:
    """One session of a campaign.

    Attributes:
        campaign: Set by whoever makes the loop, before it runs: it needs `hooks`.
        judge: Hears the reports.
        signal: The first signal that came, or None.
    """

    def __init__(self, config: pytest.Config, slots: Slots, lanes: int, discard: str) -> None:
        self.campaign: Campaign
        self.judge: Judge
        self.signal: signal.Signals | None = None
        self._config = config
        self._slots = slots
        self._lanes = lanes
        self._discard = discard
        self._deadlines = Deadlines(config)
        self._inbox: queue.SimpleQueue[tuple[Slot, int] | _Errand | None] = queue.SimpleQueue()
        self._free = list(range(lanes - 1, -1, -1))
        self._waiting: deque[Slot] = deque()
        self._running: dict[Slot, threading.Thread] = {}
        self._judging = False
        self._closed = False
        self._handlers: dict[signal.Signals, Any] = {}

    def begin(
        self, campaign: Campaign, terminal: Terminal, junit: Junit, page: PageWriter,
        follow: Callable[[Experiment], Followed] | None = None,
    ) -> None:  # fmt: skip
        """Take the parts that were made after this; `follow` brings the user's checkout along, where that is wanted."""

        def announce(judged: Experiment) -> None:
            terminal.announce(judged, follow(judged) if follow else None)

        self.campaign = campaign
        self._terminal = terminal
        self._junit = junit
        self._page = page
        self._live = Live(campaign.settings.experiments_folder / "runs" / campaign.ratchet.tag)
        self.judge = Judge(campaign, self._discard, announce)

    # ------------------------------------------------------------- the user's hooks, for lanes (attempts.Hooks)

    def propose(self, context: Context, failure: str) -> Proposal | None:
        hook = self._config.hook.pytest_autoresearch_propose
        made: Proposal | None = self._on_main(lambda: hook(campaign=self.campaign, context=context, failure=failure))
        return made

    def guard(self, context: Context, proposal: Proposal) -> str | None:
        hook = self._config.hook.pytest_autoresearch_guard
        said: str | None = self._on_main(lambda: hook(campaign=self.campaign, context=context, proposal=proposal))
        return said

    def _on_main(self, call: Callable[[], Any]) -> Any:
        errand = _Errand(call)
        self._inbox.put(errand)
        if self._closed:
            errand.cancel()
        return errand.wait()

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
        self._config.pluginmanager.register(self.judge, "autoresearch-judge")
        self._listen()
        try:
            self._check_baseline()
            self._run(session)
            self._audit(session)
        finally:
            self._close()
        return True

    def _check_baseline(self) -> None:
        if self._waiting and self._waiting[0].number != BASELINE and self.campaign.ledger.baseline is None:
            raise pytest.UsageError(
                f"the campaign {self.campaign.ratchet.tag} has no baseline yet: select 0000 as well, or nothing"
            )

    def _run(self, session: pytest.Session) -> None:
        while True:
            self._start(session)
            if not self._running and self.signal is None:
                return
            message = None
            with contextlib.suppress(queue.Empty):
                message = self._inbox.get(timeout=_TICK_SECONDS)
            if isinstance(message, _Errand):
                message.run()
            elif message is not None:
                slot, lane = message
                self._running.pop(slot).join()
                self._free.append(lane)
                self._finish(slot, session)
                self._junit.checkpoint()
                self._page.checkpoint()
            if self.signal is not None:
                self.campaign.why_over = f"stopped by {self.signal.name}; the same command goes on from here"
                raise session.Interrupted(f"stopped by {self.signal.name}")
            self._show()

    def _audit(self, session: pytest.Session) -> None:
        """Measure anew what this session has kept, where that is wanted."""
        if not (self.campaign.settings.audit and self.judge.kept) or self.campaign.failed:
            return

        def stopped() -> bool:
            self._show()
            return self.signal is not None

        self.campaign.audit(stopped)
        if self.signal is not None:
            self.campaign.why_over = f"stopped by {self.signal.name} during the audit: `autoresearch audit` makes it"
            raise session.Interrupted(f"stopped by {self.signal.name}")

    def _show(self) -> None:
        """Say where the session is, here and to whoever watches it."""
        self._terminal.show(self.campaign)
        self._live.show(self.campaign, None if self._slots.unlimited else len(self._waiting))

    def _start(self, session: pytest.Session) -> None:
        """Give every free lane the next slot."""
        while self._waiting and self._free and not any(slot.number == BASELINE for slot in self._running):
            if self.signal is not None or self.campaign.over():
                return
            slot = self._waiting.popleft()
            if not self._waiting and self._slots.unlimited:  # one slot is always ready: nextitem needs it
                self._waiting.extend(self._slots.more(session))
            if self._skipped(slot):
                self._judge(slot, session)
                if self._slots.unlimited:  # what skips this number skips every number
                    self.campaign.why_over = "a mark skips the rule"
                continue
            self.campaign.take(slot.number)
            lane = self._free.pop()
            deadline = self._deadlines.of(slot)
            thread = threading.Thread(
                target=self._conduct, args=(slot, lane, deadline), daemon=True, name=f"lane-{lane}"
            )
            self._running[slot] = thread
            thread.start()

    def _conduct(self, slot: Slot, lane: int, deadline: float | None) -> None:
        """On a lane's thread."""
        try:
            slot.experiment = self.campaign.conduct(slot.number, lane, deadline)
        except BaseException as error:
            slot.error = error
        self._inbox.put((slot, lane))

    def _skipped(self, slot: Slot) -> bool:
        """Whether a mark keeps the slot from running: pytest's own opinion, asked before anything is trained.

        A mark that cannot be evaluated does too; the item's own setup then says what is wrong with it.
        """
        plugins = self._config.pluginmanager
        skipping = plugins.get_plugin("skipping")
        if skipping is None:
            return False
        others = [other for other in plugins.get_plugins() if other is not skipping]
        try:
            for item in slot.jury:
                plugins.subset_hook_caller("pytest_runtest_setup", others)(item=item)
        except (pytest.skip.Exception, pytest.fail.Exception):
            return True
        return False

    def _finish(self, slot: Slot, session: pytest.Session) -> None:
        """A lane is done with the slot."""
        if slot.experiment is None and slot.error is None:
            self.campaign.forget(slot.number)
            return
        if isinstance(slot.error, Stopped):
            return
        if slot.experiment is not None:
            slot.experiment = self.campaign.against_best(slot.experiment)
        if slot.experiment is not None and slot.experiment.crash is None and not slot.experiment.hopeless:
            try:
                slot.ruling = self._config.hook.pytest_autoresearch_verdict(
                    campaign=self.campaign, experiment=Measured(slot.experiment)
                )
                if not isinstance(slot.ruling, Verdict | None):
                    raise TypeError(f"pytest_autoresearch_verdict returned {slot.ruling!r}: return a Verdict or None")
            except _RAISED as error:
                slot.experiment, slot.error = None, error
        try:
            self._judge(slot, session)
        finally:  # -x or a second signal may end the session here, and what is recorded is told all the same
            if slot.verdict is not None and slot.experiment is not None and slot.experiment.verdict is not None:
                self._tell(slot.experiment)
        if self.judge.broken is None and slot.verdict is not None:
            slot.experiment = None  # a night's logs are not kept in memory

    def _tell(self, experiment: Experiment) -> None:
        try:
            self._config.hook.pytest_autoresearch_record(campaign=self.campaign, experiment=experiment)
        except _RAISED as error:
            self.campaign.ledger.notices.append(
                f"pytest_autoresearch_record raised on {experiment!r}: {type(error).__name__}: {error}"
            )

    def _judge(self, slot: Slot, session: pytest.Session) -> None:
        """Run the slot's items; the judge hears their reports."""
        for place, item in enumerate(slot.jury):
            if place + 1 < len(slot.jury):
                following: pytest.Item | None = slot.jury[place + 1]
            else:
                # Whichever comes next, what it shares with this item must survive, and no more.
                ahead = [other.jury[0] for other in (*self._running, *list(self._waiting)[:1])]
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
        first = self.signal is None
        self.signal = self.signal or signal.Signals(number)
        self._inbox.put(None)  # re-entrant, unlike most of `queue`
        if not first and self._judging and not self.judge.recording:
            raise KeyboardInterrupt

    def _close(self) -> None:
        """End what is under way, and wait for it."""
        self._closed = True
        self.campaign.interrupt()
        deadline = time.monotonic() + _GOODBYE_SECONDS  # a thread that is late does not keep the process alive
        while time.monotonic() < deadline and any(thread.is_alive() for thread in self._running.values()):
            with contextlib.suppress(queue.Empty):
                message = self._inbox.get(timeout=0.05)
                if isinstance(message, _Errand):
                    message.cancel()
        self._terminal.clear()
        self._live.close()
        names = {thread.name for thread in self._running.values() if thread.is_alive()}
        self.campaign.close({lane for lane in range(self._lanes) if f"lane-{lane}" in names})
        self._page.finish(hurried=self.signal is not None)

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
    if slot is not None and run is not None and item is slot.jury[0]:
        item.add_report_section("setup", "stdout", run.log)
