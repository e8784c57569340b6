"""Numbers as coordinates: 0 is the value at the start, and 1 is half the width of the range. Pure.

Rates and sizes are measured in logarithms, shares by their odds, depths and small counts as they are, choices by their
places. A range that only the name suggests has no end: it is where to begin, and the search may leave it.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

from pytest_autoresearch.source import ranges
from pytest_autoresearch.source.constants import Value
from pytest_autoresearch.source.stated_ranges import Choices, Interval, Range

_MOST = 60.0  # of a logarithm, so that every coordinate has a finite value


@dataclass(frozen=True, slots=True)
class Axis:
    """One number.

    Attributes:
        scale: Of its coordinate: linear, log, odds, or place in `choices`.
        origin: Where the coordinate is 0, on the scale.
        unit: The length of 1, on the scale.
        low: The least coordinate.
        high: The greatest coordinate.
        grain: Whole numbers are multiples of this; 0 for floats, and -1 for powers of two.
        sign: Of the number, on a log scale.
        choices: The values, in ascending order.
        interval: The user's range.
    """

    scale: str
    origin: float
    unit: float
    low: float = -math.inf
    high: float = math.inf
    grain: int = 0
    sign: int = 1
    choices: tuple[float, ...] = ()
    interval: Interval | None = None

    def coordinate(self, value: float) -> float:
        """The coordinate of a value, inside the ends."""
        return min(max((_scaled(self, value) - self.origin) / self.unit, self.low), self.high)

    def value(self, coordinate: float) -> Value:
        """The value at a coordinate, rounded as its kind is written."""
        place = self.origin + self.unit * min(max(coordinate, self.low), self.high)
        if self.choices:
            return self.choices[min(max(round(place), 0), len(self.choices) - 1)]
        if self.scale == "odds":
            return ranges.fraction(math.exp(min(max(place, -_MOST), _MOST)))
        if self.grain < 0:
            return int(2 ** max(0, round(min(place, _MOST) / math.log(2))))
        number = self.sign * math.exp(min(max(place, -_MOST), _MOST)) if self.scale == "log" else place
        if self.interval is None:
            return max(1, round(number / self.grain)) * self.grain if self.grain else float(f"{number:.3g}")
        if not self.grain:
            return self.interval.rounded(number)
        return int(min(max(round(number), self.interval.low), self.interval.high))


def axis(name: str, start: Value, stated: Range | None) -> Axis | None:
    """The axis of a number that is `start` at the start; None if it is no number, or not to be varied."""
    if isinstance(start, bool | str) or len(ranges.candidates(name, start, stated)) < 2:
        return None
    whole = isinstance(start, int)
    if isinstance(stated, Choices):
        numbers = tuple(sorted(one for one in stated.values if not isinstance(one, str)))
        return _from(
            Axis("place", 0, max(1.0, (len(numbers) - 1) / 2), choices=numbers), start, -0.49, len(numbers) - 0.51
        )
    if stated is not None:
        ends = [math.log(end) if stated.log else end for end in (stated.low, stated.high)]
        scale = "log" if stated.log else "linear"
        return _from(Axis(scale, 0, (ends[1] - ends[0]) / 2, grain=int(whole), interval=stated), start, *ends)
    if not whole:
        scale = "odds" if ranges.is_fraction(name, start) else "log"
        return _from(Axis(scale, 0, math.log(2), sign=1 if start > 0 else -1), start)
    if ranges.is_small(name, int(start)):
        return _from(Axis("linear", 0, max(1, start // 4), grain=1), start, 1)
    power = int(start).bit_count() == 1
    return _from(Axis("log", 0, math.log(2), grain=-1 if power else ranges.roundness(int(start))), start)


def _from(made: Axis, start: float, low: float = -math.inf, high: float = math.inf) -> Axis:
    """The axis with its origin at the start, and its ends."""
    origin = min(max(_scaled(made, start), low), high)
    return replace(made, origin=origin, low=(low - origin) / made.unit, high=(high - origin) / made.unit)


def _scaled(made: Axis, value: float) -> float:
    """A value on the axis's scale."""
    if made.choices:
        return min(range(len(made.choices)), key=lambda place: abs(made.choices[place] - value))
    if made.scale == "linear":
        return value
    if made.scale == "odds":
        inside = min(max(value, 1e-12), 1 - 1e-12)
        return math.log(inside / (1 - inside))
    return math.log(max(abs(value), 1e-12))
