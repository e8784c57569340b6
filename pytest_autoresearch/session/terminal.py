"""The terminal output: a header, one line for each experiment, a live line while it runs, a summary.

At verbosity 0 these lines replace pytest's dots, with -v they stand between pytest's lines, and with -q only the dots
are shown. A terse session, which an agent drives, is quiet and prints a few lines for each experiment.
"""

from __future__ import annotations

import os
import time
from collections.abc import Generator
from typing import TYPE_CHECKING

import pytest

from pytest_autoresearch.core.artifacts import logs
from pytest_autoresearch.core.experiment import BASELINE, Experiment, Status
from pytest_autoresearch.core.text import one_line, shortened
from pytest_autoresearch.ledger.current import current
from pytest_autoresearch.measure.advice import advice
from pytest_autoresearch.reports import next_steps, summary
from pytest_autoresearch.reports.harmless import HarmlessOutput
from pytest_autoresearch.reports.line import json_line, verdict_line

if TYPE_CHECKING:
    from pytest_autoresearch.campaign.campaign import Campaign
    from pytest_autoresearch.campaign.checkout import Followed
    from pytest_autoresearch.reports.position import Position
    from pytest_autoresearch.session.outcome import Outcome

_LAST_LINES = 3  # of long output, in a terse session
_HEARTBEAT_SECONDS = 30.0  # between lines of progress without a terminal
_COLOURS = {Status.KEEP: {"green": True}, Status.DISCARD: {}, Status.CRASH: {"red": True}}


class Terminal:
    """Writes the session's output; without a terminal reporter it writes nothing.

    Args:
        header: The first lines.
        notes: Sentences to show before anything is trained, in a terse session, too.
        outcome: How the session goes.

    Attributes:
        output: Where pytest writes, without commands for a CI runner; None without a terminal reporter.
    """

    def __init__(
        self, config: pytest.Config, campaign: Campaign, header: list[str], notes: list[str], outcome: Outcome
    ) -> None:
        reporter = config.pluginmanager.get_plugin("terminalreporter")
        self._config = config
        self._reporter: pytest.TerminalReporter | None = reporter
        self._header = [*header, *(f"  note:     {note}" for note in notes)]
        self._notes = notes
        self._lines = reporter is not None and reporter.verbosity >= 0
        self._terse = campaign.settings.proposer == "checkout" and not self._lines
        self._json = campaign.settings.json
        self._announced: set[int] = set()
        self._drawn = False
        self._silent = False  # true while pytest would print a dot for a report
        self._said_at = time.monotonic()
        self._campaign = campaign
        self._outcome = outcome
        self.output: HarmlessOutput | None = None
        if reporter is None:
            return
        # Everything that pytest writes, also the parts of a traceback and captured output, may be a candidate's.
        self.output = reporter._tw._file = HarmlessOutput(reporter._tw._file)
        if config.option.reportchars == "fE":  # pytest's default; every experiment already had its line
            reporter.reportchars = reporter.reportchars.replace("f", "").replace("E", "")
        if self._lines and reporter.verbosity == 0:
            reporter.showfspath = False

    def pytest_report_header(self) -> list[str]:
        return self._header

    @pytest.hookimpl(wrapper=True)
    def pytest_report_teststatus(
        self, report: pytest.TestReport
    ) -> Generator[None, tuple[str, str, object], tuple[str, str, object]]:
        status = yield
        return (status[0], "", "") if self._silent else status

    @pytest.hookimpl(tryfirst=True)
    def pytest_runtestloop(self, session: pytest.Session) -> None:
        if self._terse and self._reporter is not None:
            for note in self._notes:
                self._reporter.write_line(f"note: {note}")
        if getattr(session.config.option, "tbstyle", None) == "auto" and not session.testsfailed:
            session.config.option.tbstyle = (
                "no"  # a discard is one line, not a traceback; collection errors are already shown
            )

    @pytest.hookimpl(wrapper=True, tryfirst=True)
    def pytest_runtest_logreport(self) -> Generator[None, object, object]:
        self._silent = self._terse or (self._lines and self._reporter is not None and self._reporter.verbosity == 0)
        try:
            return (yield)
        finally:
            self._silent = False

    def announce(self, experiment: Experiment, followed: Followed | None = None) -> None:
        """Print the line of a judged experiment.

        Args:
            experiment: Judged.
            followed: What was done to the user's checkout, if the edit came from it.
        """
        self.clear()
        first = not self._announced
        self._announced.add(experiment.number)
        self._said_at = time.monotonic()
        if self._reporter is None or experiment.verdict is None:
            return
        colour = _COLOURS[experiment.verdict.status]
        log = self._log(experiment)
        if self._terse:
            self._reporter.write_line(verdict_line(experiment), **colour)
            if log and experiment.number != BASELINE:
                self._reporter.write_line(f"log: {log}")
        elif self._lines:
            if first:
                self._reporter.write_line(summary.column_line(experiment.metric_name), bold=True)
            self._reporter.write_line(summary.experiment_line(experiment), **colour)
        if followed is not None and followed.said and (self._terse or self._lines):
            self._reporter.write_line(followed.said)
        if self._json:
            if self._reporter.config.get_terminal_writer().width_of_current_line:  # behind pytest's dots
                self._reporter.write_line("")
            self._reporter.write_line(json_line(experiment, log, followed.command if followed else ""))

    def _log(self, experiment: Experiment) -> str:
        """The log of its last run, relative to the current folder; empty if nothing was run."""
        found = logs(self._campaign.settings.artifacts(experiment)) if experiment.runs else []
        return os.path.relpath(found[-1]) if found else ""

    def _hear(self) -> None:
        """Print the messages of proposers."""
        while self._campaign.news:
            text = one_line(self._campaign.news.popleft())
            if self._reporter is not None and self._lines:
                self.clear()
                self._reporter.write_line(f" ...   {text}")

    def show(self, where: Position) -> None:
        """Show the progress of session and running experiments: redrawn on a terminal, every 30 s in a log."""
        self._hear()
        shown = self._lines or (self._terse and self._reporter is not None and self._reporter.isatty)
        flights = list(self._campaign.flights)
        if self._reporter is None or not shown or not flights:
            return
        several = len(self._campaign.lanes) > 1
        under_way = [
            summary.progress_line(one.number, shortened(one.description), progress, lane if several else None)
            for one in flights
            for lane, progress in one.by_lane
        ]
        if self._reporter.isatty:
            text = " | ".join([*([] if self._terse else [str(where)]), *under_way])
            self._reporter.rewrite(text[: self._reporter.config.get_terminal_writer().fullwidth - 1], erase=True)
            self._drawn = True
        elif time.monotonic() - self._said_at > _HEARTBEAT_SECONDS:
            self._said_at = time.monotonic()
            self._reporter.write_line(f" ...   {' | '.join([where.sentence, *under_way])}")

    def clear(self) -> None:
        """Erase the live line."""
        if self._drawn and self._reporter is not None:
            self._reporter.rewrite("", erase=True)
            self._reporter.write("\r")  # the erasing spaces end at the margin
            self._drawn = False

    def pytest_terminal_summary(self, terminalreporter: pytest.TerminalReporter) -> None:
        self._hear()
        if self._terse:
            self._end_tersely(terminalreporter)
            return
        campaign, outcome, out = self._campaign, self._outcome, terminalreporter
        if outcome.broken is not None:
            out.section("the campaign stopped", red=True, bold=True)
            out.write_line(outcome.broken.longreprtext)
            out.write_line(outcome.reason, red=True)
            out.write_line("this experiment was not recorded: fix this and rerun the same command")
            self._advise(out)
        out.section(f"autoresearch {campaign.ratchet.tag}", bold=True)
        for line in summary.summary_lines(
            campaign.ledger.records,
            self._announced,
            f"autoresearch/{campaign.ratchet.tag}",
            campaign.usage,
            campaign.audited(),
        ):
            out.write_line(line)
        if campaign.why_over:
            out.write_line(f"ended: {campaign.why_over}")
        for notice in campaign.ledger.notices:
            out.write_line(f"note: {notice}", yellow=True)
        if outcome.broken is None:
            for line in self._next_steps():
                out.write_line(line)

    def _next_steps(self) -> list[str]:
        campaign, config = self._campaign, self._config
        again = [] if campaign.over() else next_steps.more_of([str(word) for word in config.invocation_params.args])
        found = current(campaign.ratchet, config.getini("autoresearch_tag") or None)
        return next_steps.next_steps(
            campaign.ledger.records,
            again,
            named="" if found == campaign.ratchet.tag else campaign.ratchet.tag,
            audited=campaign.audited() is not None,
            follows=campaign.settings.proposer == "checkout",
        )

    def _advise(self, out: pytest.TerminalReporter) -> None:
        """Print what to type if the baseline crashed for a usual reason."""
        campaign, run = self._campaign, self._outcome.crashed_baseline
        if run is not None:
            confined = bool(campaign.setting.confined)
            for said in advice(run, campaign.settings, campaign.ratchet, confined, of_commit=True):
                out.write_line(one_line(said), yellow=True)

    def _end_tersely(self, out: pytest.TerminalReporter) -> None:
        """Print only what the lines of the experiments do not contain."""
        campaign, outcome = self._campaign, self._outcome
        if outcome.broken is not None:
            for said in outcome.broken.longreprtext.splitlines()[-_LAST_LINES:]:
                out.write_line(said)
            out.write_line(f"the campaign stopped: {outcome.reason}", red=True)
            self._advise(out)
        if not self._announced - {BASELINE}:
            if campaign.why_over:
                out.write_line(f"ended: {campaign.why_over}")
            out.write_line(f"no verdict: the edit is still in {', '.join(campaign.settings.editable)}")
        for notice in campaign.ledger.notices[:_LAST_LINES]:
            out.write_line(f"note: {notice}", yellow=True)
