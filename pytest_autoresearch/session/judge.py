"""From reports to a verdict.

Registered when the loop starts, so that its wrapper is the outermost: nobody changes a report after it was judged, and
the record is in git before anybody hears of the report.
"""

from __future__ import annotations

from collections.abc import Callable, Generator
from typing import Any

import pytest

from pytest_autoresearch.campaign.campaign import Campaign
from pytest_autoresearch.core.errors import AutoresearchError, UserError
from pytest_autoresearch.core.experiment import BASELINE, Experiment, Reason, Status, Usage, Verdict
from pytest_autoresearch.core.text import one_line, shortened
from pytest_autoresearch.keeprule import verdict
from pytest_autoresearch.session.outcome import Outcome
from pytest_autoresearch.session.slots import SLOT, Slot

SCORER = "scorer:"  # before the names of the scorer's numbers: no name that is printed has a colon
_MESSAGE_CHARACTERS = 500  # pytest cuts JUnit's message near here
_TRIED_CHARACTERS = 80  # of the description before a verdict


class Judge:
    """Hears every report of every item, and has the verdicts recorded.

    Args:
        discard: How pytest reports a discard: `fail` or `xfail`.
        announce: Shows a judged experiment.

    Attributes:
        recording: Whether git is at work at this moment: a second signal must not interrupt that.
    """

    def __init__(
        self, campaign: Campaign, outcome: Outcome, discard: str, announce: Callable[[Experiment], None]
    ) -> None:
        self.recording = False
        self._campaign = campaign
        self._outcome = outcome
        self._discard = discard
        self._announce = announce
        self._in_body = False

    @pytest.hookimpl(wrapper=True, tryfirst=True)
    def pytest_runtest_call(self) -> Generator[None, object, object]:
        self._in_body = True
        try:
            return (yield)
        finally:
            self._in_body = False

    @pytest.hookimpl(tryfirst=True)
    def pytest_pyfunc_call(self, pyfuncitem: pytest.Function) -> None:
        """A run that was ended early has no numbers for a test to ask for; nor is there a best to compare them with."""
        slot = pyfuncitem.stash.get(SLOT, None)
        experiment = slot.experiment if slot is not None else None
        if experiment is not None and experiment.refutes:
            pytest.fail(f"{experiment.refutes[:7]} is taken back", pytrace=False)
        if experiment is not None and experiment.hopeless:
            pytest.fail(f"hopeless: {experiment.hopeless}", pytrace=False)

    @pytest.hookimpl(wrapper=True, tryfirst=True)
    def pytest_runtest_makereport(
        self, item: pytest.Item, call: pytest.CallInfo[None]
    ) -> Generator[None, pytest.TestReport, pytest.TestReport]:
        report = yield
        slot = item.stash.get(SLOT, None)
        if slot is not None:
            self._hear(item, slot, report, call)
        return report

    def _hear(self, item: pytest.Item, slot: Slot, report: pytest.TestReport, call: pytest.CallInfo[None]) -> None:
        experiment = slot.experiment
        if report.when == "teardown":
            self._outcome.teardown_errors += report.failed
            report.user_properties[:] = item.user_properties  # JUnit takes those of the last report
            if experiment is not None and slot.verdict is not None:  # a passed test has no message in JUnit
                said = f"{slot.verdict}\n{experiment.proposal.description}\n"
                report.sections.insert(0, ("Captured stdout verdict", said))
            return
        if report.passed and (report.when == "setup" or self._in_body):
            return  # a subtest reports while its test goes on: what passed so far decides nothing
        if experiment is None:
            if slot.error is not None:
                self._break(item, report, f"{type(slot.error).__name__}: {slot.error}", infrastructure=True)
            elif report.failed:
                self._break(item, report, f"the rule is broken: {_what_failed(_message(report))}", infrastructure=False)
            return
        if slot.verdict is None and self._outcome.broken is None:
            ruling = self._rule(item, slot, experiment, report, call)
            if ruling is not None:
                self._record(item, slot, experiment, ruling, report)
        elif slot.verdict is not None and report.failed:
            self._agree(report, experiment, slot.verdict)
        self._dress(item, slot, report)

    def _rule(
        self, item: pytest.Item, slot: Slot, experiment: Experiment, report: pytest.TestReport,
        call: pytest.CallInfo[None],
    ) -> Verdict | None:  # fmt: skip
        """What this report means for its experiment; None while other tests of the slot have not reported."""
        raised = call.excinfo.value if call.excinfo else None
        if experiment.crash is not None:
            return verdict.crashed(experiment.crash)
        if experiment.refutes:
            return verdict.refuting(experiment)
        if experiment.hopeless:
            return verdict.stopped(experiment)
        if slot.ruling is not None and report.when == "call":  # in place of the asserts, not of a broken fixture
            return verdict.kept(experiment) if experiment.share and slot.ruling.status is Status.KEEP else slot.ruling
        if hasattr(report, "wasxfail"):
            return verdict.undecided(experiment, Reason.XFAIL if report.skipped else Reason.XPASS, str(report.wasxfail))
        if report.skipped:
            return verdict.undecided(experiment, Reason.SKIP, one_line(_message(report)))
        if report.passed:
            slot.passed.add(item)
            return verdict.kept(experiment) if slot.passed >= set(slot.items) else None
        if raised is None:  # failed without an exception: a strict xpass, or a conftest that rewrote the report
            return verdict.discarded(experiment, one_line(_message(report)))
        if report.when == "call" and isinstance(raised, AssertionError | pytest.fail.Exception):
            return verdict.discarded(experiment, _what_failed(_message(report)))
        self._break(item, report, f"the rule is broken: {_what_failed(_message(report))}", infrastructure=False)
        report.longrepr = _with_places(item, call.excinfo)
        return None

    def _record(
        self, item: pytest.Item, slot: Slot, experiment: Experiment, ruling: Verdict, report: pytest.TestReport
    ) -> None:
        if experiment.number == BASELINE and ruling.status is not Status.KEEP:
            # Without a baseline there is no campaign: nothing is recorded, and the next session measures it again.
            self._campaign.forget(BASELINE)
            slot.verdict = ruling
            if ruling.status is Status.CRASH:
                self._outcome.crashed_baseline = experiment.last_run
            self._break(item, report, f"the baseline did not pass: {ruling}", infrastructure=False)
            return
        self.recording = True  # a second signal must not tear this apart
        try:
            judged = self._campaign.record(experiment, ruling)
        except (AutoresearchError, OSError) as error:
            broken = not isinstance(error, UserError)
            self._break(item, report, f"not recorded: {error}", infrastructure=broken)
            return
        finally:
            self.recording = False
        slot.experiment, slot.verdict = judged, judged.verdict
        if judged.verdict is not None:
            self._outcome.verdicts[judged.number] = judged.verdict.status
            self._outcome.judged.update(one.nodeid for one in slot.items)
            self._agree(report, judged, judged.verdict)
        self._announce(judged)

    def _agree(self, report: pytest.TestReport, experiment: Experiment, ruling: Verdict) -> None:
        """Where git's verdict is not the report's, the report gives way; so do later failures of the same slot."""
        if ruling.status is Status.CRASH:
            return
        if ruling.status is Status.KEEP:
            if report.when == "call":  # after a setup that passed, pytest would go on to the body
                report.outcome, report.longrepr = "passed", None
        elif report.passed:
            report.outcome, report.longrepr = "failed", str(ruling)
        if ruling.reason == Reason.JOINS:  # no test failed, and the branch does not move yet
            said = _first_line(experiment, ruling)
            report.outcome, report.longrepr = "skipped", (report.location[0], report.location[1] or 0, said)
        elif ruling.status is Status.DISCARD and report.failed and self._discard == "xfail":
            report.outcome = "skipped"
            report.wasxfail = _first_line(experiment, ruling)

    def _dress(self, item: pytest.Item, slot: Slot, report: pytest.TestReport) -> None:
        """Duration to the slot's first report, numbers to the deciding one, the verdict to every failure."""
        experiment = slot.experiment
        if experiment is None:
            return
        if not slot.timed:
            slot.timed = True
            report.duration += experiment.seconds
            report.start = report.stop - report.duration
        if not slot.described and (slot.verdict is not None or self._outcome.broken is report):
            slot.described = True
            item.user_properties += properties(experiment)
        report.user_properties[:] = item.user_properties
        if report.failed:
            if self._outcome.broken is report:
                _head(report, self._outcome.reason)
            elif slot.verdict is None:
                _head(report, "undecided")
            else:
                _head(report, _first_line(experiment, slot.verdict), replacing=str(slot.verdict))

    def _break(self, item: pytest.Item, report: pytest.TestReport, reason: str, infrastructure: bool) -> None:
        if self._outcome.broken is None:
            self._outcome.broken, self._outcome.reason, self._outcome.infrastructure = report, reason, infrastructure
        if not report.failed:
            report.outcome, report.longrepr = "failed", reason
        item.session.shouldstop = "the campaign stopped, as said above"


def properties(experiment: Experiment) -> list[tuple[str, object]]:
    """What JUnit says of an experiment, in the order of interest."""
    given = experiment.verdict
    run = experiment.last_run
    own = [
        ("experiment", f"{experiment.number:04d}"),
        ("status", str(given.status) if given else "undecided"),
        ("reason", given.reason if given else ""),
        ("description", experiment.proposal.description),
        (experiment.metric_name, f"{experiment.metric:.6f}" if experiment.measured else ""),
        ("best", "" if experiment.decision.best is None else f"{experiment.decision.best:.6f}"),
        ("gain", "" if given is None or given.gain is None else f"{given.gain:.6f}"),
        ("margin", f"{experiment.margin:.6f}"),
        ("runs", len(experiment.runs)),
        ("commit", experiment.commit),
        ("base", experiment.base),
        ("tag", experiment.tag),
        ("proposer", experiment.proposal.proposer),
        *_paid(experiment.usage),
        ("sandbox", experiment.setting.sandbox),
        ("training_seconds", f"{experiment.training_seconds:.1f}"),
        ("total_seconds", f"{experiment.seconds:.1f}"),
        ("peak_memory_mb", f"{experiment.peak_memory_mb:.1f}"),
        ("memory_from", run.memory_from if run else ""),
        ("device", run.device if run else ""),
        ("seed", run.seed if run else ""),
        ("lane", run.lane if run else ""),
        *((f"{SCORER}{name}", value) for name, value in experiment.scored.items() if name != experiment.metric_name),
    ]
    known = {name for name, _ in own}  # training prints no number over one of these
    return [*own, *((name, value) for name, value in experiment.metrics.items() if name not in known)]


def _paid(usage: Usage) -> list[tuple[str, object]]:
    """What the proposal used, where anything was paid for."""
    if not usage.requests:
        return []
    cost = "" if usage.cost_usd is None else f"{usage.cost_usd:.6f}"
    return [("model", usage.model), ("tokens", usage.tokens), ("cost_usd", cost)]


def _with_places(item: pytest.Item, excinfo: pytest.ExceptionInfo[BaseException] | None) -> Any:
    """What was raised, with file and line: for the one failure that somebody has to put right."""
    style = getattr(item.config.option, "tbstyle", "auto")
    item.config.option.tbstyle = "short"
    try:
        return item.repr_failure(excinfo) if excinfo else None
    finally:
        item.config.option.tbstyle = style


def _message(report: pytest.TestReport) -> str:
    crash = getattr(report.longrepr, "reprcrash", None)
    if crash is not None:
        return str(crash.message)
    return str(report.longrepr[2] if isinstance(report.longrepr, tuple) else report.longrepr)


def _what_failed(text: str) -> str:
    """The first line, and the one that says where its value came from."""
    first, *rest = text.split("\n")
    where = [line for line in rest[:1] if line.strip().startswith("+ ")]
    return one_line(" ".join([first, *where]))


def _first_line(experiment: Experiment, ruling: Verdict) -> str:
    """What was tried, and what became of it: `LR 0.1 -> 0.2: discard: val_bpb 2.44, best 2.43 (+0.01)`."""
    return f"{shortened(experiment.proposal.description, _TRIED_CHARACTERS)}: {ruling}"


def _head(report: pytest.TestReport, said: str, replacing: str = "") -> None:
    """Put a line where JUnit's message and the short summary look first.

    Args:
        replacing: What the message may already begin with, and need not say twice.
    """
    text = _message(report).removeprefix("Failed: ").removeprefix(replacing).lstrip("\n")
    if not text.startswith(said):
        text = f"{said}\n{text}".rstrip("\n")
    crash = getattr(report.longrepr, "reprcrash", None)
    if crash is not None:
        crash.message = text[:_MESSAGE_CHARACTERS]
    else:
        report.longrepr = text
