"""`--autoresearch-dry-run`: what a session would do first, and what it may cost. Runs and records nothing."""

from __future__ import annotations

import math

import pytest

from pytest_autoresearch.campaign.campaign import Campaign
from pytest_autoresearch.campaign.preview import Preview
from pytest_autoresearch.core.text import one_line, shortened
from pytest_autoresearch.proposers.base import Asked
from pytest_autoresearch.reports.harmless import HarmlessOutput
from pytest_autoresearch.reports.summary import plural
from pytest_autoresearch.session.selection import check_selected
from pytest_autoresearch.session.slots import Slots

_PROMPT_LINES, _PROMPT_WIDTH, _DIFF_LINES = 8, 74, 60
_CHARACTERS_A_TOKEN = 3.5  # of English and Python, about


class DryRun:
    """Takes the place of the loop.

    Args:
        header: The first lines, as those of a session.
        hooked: Whether a hook of the user proposes; it is not called.
    """

    def __init__(
        self, config: pytest.Config, campaign: Campaign, slots: Slots, header: list[str], hooked: bool
    ) -> None:
        self._config = config
        self._campaign = campaign
        self._slots = slots
        self._header = header
        self._hooked = hooked
        reporter = config.pluginmanager.get_plugin("terminalreporter")
        self._reporter: pytest.TerminalReporter | None = reporter
        if reporter is not None:
            reporter._tw._file = HarmlessOutput(reporter._tw._file)  # a diff is a stranger's text
            reporter.build_summary_stats_line = lambda: ([("nothing was run or recorded", {"green": True})], "green")

    def pytest_report_header(self) -> list[str]:
        return self._header

    @pytest.hookimpl(tryfirst=True)
    def pytest_runtestloop(self, session: pytest.Session) -> bool | None:
        if session.testsfailed:
            return None  # pytest's own loop says so
        check_selected(self._config, self._slots, self._slots.waiting(session.items))
        lines = self._lines()
        if self._reporter is not None:
            self._reporter.write_line("")
            self._reporter.section("what would come first", bold=True)
            for line in lines:
                self._reporter.write_line(line)
        return True

    def _lines(self) -> list[str]:
        campaign = self._campaign
        first = [] if campaign.ledger.baseline else [_baseline(campaign.pace.baseline_runs)]
        if owed := campaign.owed():
            first.append(f"then {plural(len(owed), 'candidate')} of an earlier session: {'; '.join(owed[:3])}")
        if self._hooked:
            return [*first, "then what a hook of a conftest proposes; it is not called here"]
        preview = campaign.preview()
        if preview.asked is not None:
            return [*first, *_asked(preview.proposer, preview.asked), *self._cost(preview.asked)]
        return [*first, *_proposed(preview)]

    def _cost(self, asked: Asked) -> list[str]:
        settings = self._campaign.settings
        lines = []
        if asked.most_usd is not None:
            lines.append(
                f"one request costs at most ${asked.most_usd:.2f}; repairs and a look at the past are more requests"
            )
            if settings.max and settings.cost_usd is None:
                many = f"{plural(settings.max, 'experiment')} with one request each cost"
                lines.append(f"{many} at most ${settings.max * asked.most_usd:.2f}")
        if settings.cost_usd is not None:
            lines.append(f"the session costs at most ${settings.cost_usd:.2f} (--autoresearch-cost)")
        else:
            lines.append("the session's cost has no limit: --autoresearch-cost USD sets one")
        return lines


def _baseline(runs: int) -> str:
    return f"first the baseline: {plural(runs, 'run')} of the program as it is"


def _asked(proposer: str, asked: Asked) -> list[str]:
    shown = asked.text.splitlines()
    tokens = math.ceil(len(asked.text) / _CHARACTERS_A_TOKEN)
    more = len(shown) - _PROMPT_LINES
    return [
        f"then {proposer} is shown {len(asked.text):,} characters, about {tokens:,} tokens, which begin:",
        *(f"  | {shortened(line, _PROMPT_WIDTH)}" for line in shown[:_PROMPT_LINES]),
        *([f"  | ... {plural(more, 'line')} more"] if more > 0 else []),
    ]


def _proposed(preview: Preview) -> list[str]:
    proposal, said = preview.proposal, f"then {preview.proposer} proposes"
    if proposal is None:
        return [f"then {preview.proposer} has nothing to propose" + (f": {preview.refused}" if preview.refused else "")]
    lines = [f"{said}, at no cost: {proposal.short}"]
    if preview.refused:
        return [*lines, f"it is refused: {one_line(preview.refused)}"]
    diff = preview.diff.splitlines()
    more = len(diff) - _DIFF_LINES
    return [*lines, *diff[:_DIFF_LINES], *([f"... {plural(more, 'line')} more"] if more > 0 else [])]
