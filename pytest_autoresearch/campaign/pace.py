"""How far a session is and how long it still takes, by what its experiments have taken so far."""

from __future__ import annotations

import math
import time
from collections.abc import Callable

from pytest_autoresearch.campaign.in_flight import Flights
from pytest_autoresearch.campaign.session_clock import SessionClock
from pytest_autoresearch.core.experiment import BASELINE, Usage
from pytest_autoresearch.ledger.ledger import Ledger
from pytest_autoresearch.measure.harness import Harness
from pytest_autoresearch.measure.limits import limits_of
from pytest_autoresearch.reports import position
from pytest_autoresearch.reports.position import Position
from pytest_autoresearch.settings import Settings


class Pace:
    """Follows one session.

    Args:
        lanes: How many experiments run at a time.
        usage: What the session's proposals have used so far.
    """

    def __init__(
        self, settings: Settings, harness: Harness, ledger: Ledger, flights: Flights, lanes: int, clock: SessionClock,
        usage: Callable[[], Usage],
    ) -> None:  # fmt: skip
        self._ledger = ledger
        self._flights = flights
        self._lanes = lanes
        self._clock = clock
        self._usage = usage
        self._total = settings.total
        self.baseline_runs = harness.prior(settings.metric).baseline_runs if settings.rule.looks else 1
        budget = limits_of(settings, harness).budget_seconds
        # Training that a harness clocks uses its whole budget; any other may end at once.
        self._run_seconds = position.seconds_of_a_run(budget) if harness.score else None
        self._known, self._since = -1, time.monotonic()

    def now(self, judged: int, waiting: int | None) -> Position:
        """Where the session is.

        Args:
            judged: How many verdicts it has, the baseline's not counted.
            waiting: How many experiments it may still begin; None for no limit.
        """
        under_way = len(self._flights.numbers - {BASELINE})
        if self._total is not None:
            numbers = self._flights.numbers | {record.number for record in self._ledger.records}
            room = max(self._total - len(numbers - {BASELINE}), 0)
            waiting = room if waiting is None else min(waiting, room)
        usage = self._usage()
        cost = usage.cost_usd if usage.requests else None
        return Position(judged + under_way, waiting, self._left(under_way, waiting), cost, self._clock.is_paused)

    def _left(self, under_way: int, waiting: int | None) -> float | None:
        """Seconds until the end, about; None if nothing says so yet."""
        records, limit = self._ledger.records, self._clock.left()
        if len(records) != self._known:
            self._known, self._since = len(records), time.monotonic()
        if waiting is None:
            return limit if math.isfinite(limit) else None
        each, first = position.seconds_of_an_experiment(records), 0.0
        if each is None and self._run_seconds is not None:
            each = self._run_seconds * (position.RUNS_OF_AN_EXPERIMENT if self.baseline_runs > 1 else 1)
            first = self._run_seconds * (1 + math.ceil((self.baseline_runs - 1) / self._lanes))
        if each is None:
            return None
        running = first + under_way * each / self._lanes - (time.monotonic() - self._since)
        return min(max(running, 0.0) + waiting * each / self._lanes, limit)
