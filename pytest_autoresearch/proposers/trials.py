"""What the records say about single changes of constants: for each value that was tried, how much worse it was."""

from __future__ import annotations

import json
import math
from bisect import bisect_left
from collections.abc import Mapping
from dataclasses import dataclass, field

from pytest_autoresearch.core.experiment import Experiment, Proposal, Reason, Status
from pytest_autoresearch.core.run import CrashClass
from pytest_autoresearch.source.constants import Value

Step = dict[str, tuple[Value, Value]]  # constants by name: the values before and after


@dataclass(slots=True)
class Memory:
    """The trials of one constant, from the records.

    Attributes:
        losses: For each tried value, how much worse the metric was than with the first value, in the metric's unit.
            Each trial is compared with its own base, which removes the effects of other constants. Infinite after a
            crash.
        kept: How many of its changes were kept.
        failed: How many were not kept.
        running: How many are running.
    """

    losses: dict[Value, float] = field(default_factory=dict)
    kept: int = 0
    failed: int = 0
    running: int = 0

    def add(self, before: Value, after: Value, loss: float, kept: bool) -> None:
        """Add one trial; `loss` is relative to the value that it started from."""
        base = self.losses.setdefault(before, 0.0)
        if math.isnan(loss):  # unknown: take the median of the worse ones
            worse = sorted(one for one in self.losses.values() if 0 < one < math.inf)
            loss = worse[len(worse) // 2] if worse else math.inf
        self.losses[after] = (base if math.isfinite(base) else 0.0) + loss
        self.kept += kept
        self.failed += not kept


def before(proposal: Proposal) -> dict[str, Value]:
    """The earlier values of the constants that a search's proposal changed: its `source`."""
    try:
        said = json.loads(proposal.source)
    except ValueError:
        return {}
    return said if isinstance(said, dict) else {}


def step(proposal: Proposal) -> Step:
    """The constants that a search's proposal changed, each with its values before and after."""
    earlier, after = before(proposal), proposal.parameters
    return {name: (earlier[name], after[name]) for name in earlier.keys() & after.keys()}


def is_same(changes: Mapping[str, Value], other: Step) -> bool:
    """Whether the running trial sets the same constants to the same values, whatever they were before."""
    return changes == {name: after for name, (_, after) in other.items()}


def is_beside(changes: Mapping[str, Value], other: Step, near: Mapping[str, tuple[Value, ...]]) -> bool:
    """Whether the running trial sets the same constants to the same or to neighbouring values."""
    return changes.keys() == other.keys() and all(
        abs(nearest(near[name], value) - nearest(near[name], other[name][1])) <= 1 for name, value in changes.items()
    )


def loss(record: Experiment) -> float:
    """How much worse than the best, in the metric's unit; infinite for a crash, NaN without a result.

    If the metric was good enough but the experiment was discarded, another assertion failed, such as one on memory.
    Similar values would fail, too, so this counts as a crash.
    """
    verdict = record.verdict
    if record.hopeless or (record.crash is not None and record.crash.kind is CrashClass.STALE):
        return math.nan
    if record.crash or verdict is None or verdict.status is Status.CRASH or not math.isfinite(record.gain):
        return math.inf
    undecided = verdict.reason in (Reason.STALE, Reason.SKIP)
    turned_down = verdict.status is Status.DISCARD and record.gain > record.margin and not undecided
    return math.inf if turned_down else -record.gain


def nearest(values: tuple[Value, ...], value: Value) -> int:
    """The index of the nearest of sorted values; of a text, its own index, or the last."""
    if isinstance(value, str):
        return values.index(value) if value in values else len(values) - 1
    after = bisect_left(values, value)
    around = range(max(0, after - 1), min(len(values), after + 1))
    return min(around, key=lambda index: abs(values[index] - value))  # type: ignore[operator]
