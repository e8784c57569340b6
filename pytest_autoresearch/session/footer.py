"""pytest's last line in the words of a campaign: `1 baseline, 2 kept, 9 discarded, 1 crashed in 95.02s`.

A discard is an ordinary result, so it is not counted as a failure there. Everything else that pytest counts (warnings,
deselected items, errors of fixtures, a broken rule) stays, and the line is red only if the exit status is not 0.
"""

from __future__ import annotations

from collections import Counter
from typing import Any

import pytest

from pytest_autoresearch.core.experiment import BASELINE, Status
from pytest_autoresearch.session.outcome import Outcome

Part = tuple[str, dict[str, bool]]
_WORDS = {Status.KEEP: ("kept", "green"), Status.DISCARD: ("discarded", ""), Status.CRASH: ("crashed", "yellow")}


class Footer:
    """Replaces the counts of a terminal reporter's last line; another plugin's reporter may draw its own.

    Args:
        outcome: How the session goes.
    """

    def __init__(self, config: pytest.Config, outcome: Outcome) -> None:
        self._outcome = outcome
        self._session: pytest.Session | None = None
        self._reporter: Any = config.pluginmanager.get_plugin("terminalreporter")
        if self._reporter is not None:
            self._as_pytest = self._reporter.build_summary_stats_line
            self._reporter.build_summary_stats_line = self._build

    def pytest_sessionstart(self, session: pytest.Session) -> None:
        self._session = session

    def _build(self) -> tuple[list[Part], str]:
        """The parts of the line, each with its markup, and the colour of the whole."""
        if not self._outcome.judged:
            parts: tuple[list[Part], str] = self._as_pytest()
            return parts
        left = self._left()
        colour = self._colour(warned="warnings" in left)
        counts = Counter(status for number, status in self._outcome.verdicts.items() if number != BASELINE)
        shown = [(counts[status], word, own) for status, (word, own) in _WORDS.items()]
        if BASELINE in self._outcome.verdicts:
            shown.insert(0, (1, "baseline", "green"))
        ours = [
            (f"{count} {word}", {own: True, "bold": own == colour} if own else {})
            for count, word, own in shown
            if count
        ]
        return [*ours, *self._others(left)], colour

    def _left(self) -> dict[str, list[Any]]:
        """What pytest counts beside the verdicts, by its own category."""
        left = {key: [one for one in reports if not self._judged(one)] for key, reports in self._reporter.stats.items()}
        return {key: reports for key, reports in left.items() if key and reports}

    def _judged(self, report: object) -> bool:
        """Whether the report belongs to an experiment with a verdict, and says no more than that."""
        if not isinstance(report, pytest.TestReport) or report.when == "teardown":
            return False
        return report.nodeid in self._outcome.judged

    def _others(self, left: dict[str, list[Any]]) -> list[Part]:
        """The rest in pytest's own words and colours."""
        if not left:
            return []
        everything, self._reporter.stats = self._reporter.stats, left
        try:
            parts: list[Part] = self._as_pytest()[0]
        finally:
            self._reporter.stats = everything
        return parts

    def _colour(self, warned: bool) -> str:
        """Red only if something is wrong; yellow if the session was interrupted or there are warnings."""
        status = self._session.exitstatus if self._session else pytest.ExitCode.OK
        if status not in (pytest.ExitCode.OK, pytest.ExitCode.INTERRUPTED):
            return "red"
        return "yellow" if status or warned else "green"
