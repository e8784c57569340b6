"""The end of a session: its exit status, the name of the page, the user's signal handlers."""

from __future__ import annotations

from collections.abc import Generator

import pytest

from pytest_autoresearch.campaign.campaign import Campaign
from pytest_autoresearch.reports.page import PageWriter
from pytest_autoresearch.session.loop import Loop
from pytest_autoresearch.session.outcome import Outcome


class Ending:
    """Decides the exit status, and restores the signal handlers when every report is written."""

    def __init__(self, loop: Loop, campaign: Campaign, outcome: Outcome, pages: PageWriter) -> None:
        self._loop = loop
        self._campaign = campaign
        self._outcome = outcome
        self._pages = pages

    @pytest.hookimpl(trylast=True)
    def pytest_terminal_summary(self, terminalreporter: pytest.TerminalReporter) -> None:
        if self._pages.written is not None and terminalreporter.verbosity >= 0:
            terminalreporter.write_sep("-", f"generated page: {self._pages.written}")

    @pytest.hookimpl(wrapper=True, trylast=True)
    def pytest_sessionfinish(self, session: pytest.Session) -> Generator[None, object, object]:
        result = yield
        session.exitstatus = self._status(session)
        return result

    def _status(self, session: pytest.Session) -> int | pytest.ExitCode:
        outcome, policy, given = self._outcome, self._campaign.settings.exit, session.exitstatus
        if outcome.signal is not None:
            return pytest.ExitCode.INTERRUPTED
        if outcome.infrastructure or self._campaign.failed:
            return pytest.ExitCode.INTERNAL_ERROR
        if outcome.reason:  # the rule is broken, or the baseline did not pass
            return pytest.ExitCode.TESTS_FAILED
        if given not in (pytest.ExitCode.OK, pytest.ExitCode.TESTS_FAILED) or policy == "strict":
            return given
        if session.shouldfail or outcome.teardown_errors:
            return pytest.ExitCode.TESTS_FAILED
        if policy == "progress" and not outcome.kept:
            return pytest.ExitCode.TESTS_FAILED
        return pytest.ExitCode.OK

    def pytest_unconfigure(self) -> None:
        self._loop.restore_signals()
        self._campaign.release()
