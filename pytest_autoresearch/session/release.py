"""Lets go of what pytest keeps of every test until the end of a session, as far as nothing shows it then.

Other plugins' reports stay as they are: what pytest's terminal holds is replaced by a shorter copy.
"""

from __future__ import annotations

import copy
from collections.abc import Generator
from dataclasses import dataclass
from typing import Any

import pytest

_SHOWN_WITH_OUTPUT = frozenset("PxX")  # of `-r`: pytest shows the output of such tests at the end


class Release:
    """Shortens the reports that the terminal keeps, and the items of judged experiments."""

    def __init__(self, config: pytest.Config) -> None:
        self._option = config.option
        self._reporter: pytest.TerminalReporter | None = config.pluginmanager.get_plugin("terminalreporter")

    @pytest.hookimpl(wrapper=True, tryfirst=True)
    def pytest_runtest_logreport(self, report: pytest.TestReport) -> Generator[None, object, object]:
        result = yield
        if self._reporter is not None and not self._shows_everything():
            for category, reports in self._reporter.stats.items():
                if reports and reports[-1] is report:
                    if category or getattr(self._option, "durations", None) is not None:
                        reports[-1] = _shortened(report)
                    else:  # a setup or teardown that passed
                        reports.pop()
        return result

    @pytest.hookimpl(wrapper=True, tryfirst=True)
    def pytest_runtest_protocol(self, item: pytest.Item) -> Generator[None, object, object]:
        result = yield
        item.user_properties.clear()  # every report has its own list
        item._report_sections.clear()  # the logs
        return result

    def _shows_everything(self) -> bool:
        """Whether pytest prints tracebacks or captured output at the end."""
        assert self._reporter is not None
        return self._option.tbstyle != "no" or not _SHOWN_WITH_OUTPUT.isdisjoint(self._reporter.reportchars)


@dataclass(frozen=True, slots=True)
class _Line:
    """What the short summary and an IDE read of a failure's `longrepr`."""

    reprcrash: Any

    def __str__(self) -> str:
        return str(self.reprcrash.message)


def _shortened(report: pytest.TestReport) -> pytest.TestReport:
    """A copy without output, properties and traceback."""
    made = copy.copy(report)
    made.sections, made.user_properties = [], []
    crash = getattr(report.longrepr, "reprcrash", None)
    if crash is not None:
        made.longrepr = _Line(crash)  # type: ignore[assignment]
    if not report.skipped:  # of a skip, pytest looks for the mark
        made.keywords = {}
    return made
