"""The views that follow a session while it runs: the terminal, the live file, JUnit and the page."""

from __future__ import annotations

from dataclasses import dataclass

from pytest_autoresearch.reports.page import PageWriter
from pytest_autoresearch.reports.position import Position
from pytest_autoresearch.session.junit import Junit
from pytest_autoresearch.session.live import Live
from pytest_autoresearch.session.terminal import Terminal


@dataclass(frozen=True, slots=True)
class Views:
    """The views of one session. None of them decides anything."""

    terminal: Terminal
    live: Live
    junit: Junit
    page: PageWriter

    def show(self, where: Position) -> None:
        """Show where the session is."""
        self.terminal.show(where)
        self.live.show(where)

    def checkpoint(self) -> None:
        """Write the reports as they are now, if that takes only their share of the time."""
        self.junit.checkpoint()
        self.page.checkpoint()

    def clear(self) -> None:
        """Take the live line and the live file away."""
        self.terminal.clear()
        self.live.close()
