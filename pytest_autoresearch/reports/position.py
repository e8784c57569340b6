"""Where a session is: which experiment of how many, how long it still takes, what it has cost. Pure."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from pytest_autoresearch.core.experiment import BASELINE, Experiment
from pytest_autoresearch.keeprule.replicates import is_exact

RUNS_OF_AN_EXPERIMENT = 1.5  # on average, with confirmations, where runs differ by their seed
_LAST = 20  # experiments that say how long the next ones take
_DAY = 86_400
_SHARE, _SECONDS = 1.1, 5.0  # what a run takes in all, for its budget: starting and scoring come on top


@dataclass(frozen=True, slots=True)
class Position:
    """Where a session is.

    Attributes:
        begun: How many experiments have begun in this session, the baseline not counted.
        waiting: How many are still to begin; None for no limit.
        seconds_left: How long the session still takes, about; None if unknown.
        cost_usd: What its proposals have cost, in US dollars; None if nothing was paid or the cost is unknown.
        paused: Whether nothing begins now, because the user asked for a pause.
    """

    begun: int
    waiting: int | None
    seconds_left: float | None = None
    cost_usd: float | None = None
    paused: bool = False

    def __str__(self) -> str:
        """For a line with other things: `3 of 100, about 6 h 20 min left, $4.10 so far`."""
        where = f"{self.begun} so far" if self.waiting is None else f"{self.begun} of {self.begun + self.waiting}"
        return ", ".join([where, *self._rest()])

    @property
    def sentence(self) -> str:
        """For a line of its own: `experiment 3 of 100, about 6 h 20 min left, $4.10 so far`."""
        if self.begun:
            where = f"experiment {self.begun}" + ("" if self.waiting is None else f" of {self.begun + self.waiting}")
        elif self.waiting is None:
            where = "no experiment yet"
        else:
            where = f"{self.waiting} experiment{'s'[: self.waiting != 1]} to begin"
        return ", ".join([where, *self._rest()])

    def _rest(self) -> list[str]:
        left = ["paused"] if self.paused else []
        left += [] if self.seconds_left is None else [f"{rough(self.seconds_left)} left"]
        return left if self.cost_usd is None else [*left, f"${self.cost_usd:.2f} so far"]


def seconds_of_an_experiment(records: Sequence[Experiment]) -> float | None:
    """How long an experiment takes on its lane, about: the mean of the last ones, or from the baseline's runs.

    None before the baseline has its record.
    """
    tried = [one.seconds - one.timings.get("wait", 0.0) for one in records if one.number != BASELINE][-_LAST:]
    if tried:
        return math.fsum(tried) / len(tried)
    if not records:
        return None
    runs = records[0].own_runs
    usual = math.fsum(run.total_seconds for run in runs) / max(len(runs), 1)
    return usual if len(runs) < 2 or is_exact(records[0]) else usual * RUNS_OF_AN_EXPERIMENT


def seconds_of_a_run(budget_seconds: float) -> float:
    """How long a run takes that uses all of its training seconds."""
    return _SHARE * budget_seconds + _SECONDS


def rough(seconds: float) -> str:
    """A duration that is only known roughly: `under a minute`, `about 4 min`, `about 6 h 20 min`, `about 31 h`."""
    minutes = round(seconds / 60)
    if seconds < 50:
        return "under a minute"
    if minutes < 60:
        return f"about {max(minutes, 1)} min"
    if seconds >= _DAY:
        return f"about {round(seconds / 3600)} h"
    hours, minutes = divmod(round(minutes, -1), 60)
    return f"about {hours} h {minutes:02d} min" if minutes else f"about {hours} h"
