"""The ranges that a user states for a search: `1e-4..1e-1 log`, `4..12`, `32, 64, 128`, `relu, gelu`, `off`. Pure."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable
from dataclasses import dataclass

from pytest_autoresearch.source.constants import Value, number_of

HOW = "write LOW..HIGH, LOW..HIGH log, choices such as 32, 64, 128, or off"
_INTERVAL = re.compile(r"(.+?)\.\.(.+?)(\s+log)?")
_SWITCHES = {"true": True, "false": False}
_EVERY = 64  # an integer range up to this width has each of its numbers as a candidate
_STEPS = 32


@dataclass(frozen=True, slots=True)
class Interval:
    """All numbers from `low` to `high`; whole numbers if both are."""

    low: float
    high: float
    log: bool = False

    @property
    def whole(self) -> bool:
        return isinstance(self.low, int) and isinstance(self.high, int)

    def grid(self, whole: bool) -> list[float]:
        """Values from end to end at even steps."""
        if whole and self.high - self.low <= _EVERY and not self.log:
            return list(range(int(self.low), int(self.high) + 1))
        shares = [step / _STEPS for step in range(_STEPS + 1)]
        if self.log:
            found = [self.low * (self.high / self.low) ** share for share in shares]
        else:
            found = [self.low + (self.high - self.low) * share for share in shares]
        return [round(value) if whole else self.rounded(value) for value in found]

    def rounded(self, value: float) -> float:
        """A float with three digits, inside the range; a linear range counts them from its width."""
        if not self.log:
            digits = 3 - math.ceil(math.log10(self.high - self.low))
            return min(max(round(value, digits), self.low), self.high) * 1.0
        return min(max(float(f"{value:.3g}"), self.low), self.high) * 1.0


@dataclass(frozen=True, slots=True)
class Choices:
    """Exactly these values; with none, the constant is left alone."""

    values: tuple[Value, ...]


Range = Interval | Choices


def parse(given: object) -> Range:
    """A range from its text, or from a list of choices.

    Raises:
        ValueError: It is none; the text is a sentence.
    """
    match given:
        case str():
            return _parse(given.strip())
        case list() if given and all(isinstance(one, bool | int | float | str) for one in given):
            return _choices(given)
    raise ValueError(f"{given!r} is no range: {HOW}")


def check(stated: Range, value: Value) -> None:
    """Check that the range gives values of the constant's type.

    Raises:
        ValueError: It does not; the text is a sentence without its subject, the constant.
    """
    if isinstance(stated, Choices):
        if any(_kind(one) != _kind(value) for one in stated.values):
            raise ValueError(f"is a {_kind(value)}, and its choices are not: write each as a {_kind(value)}")
    elif _kind(value) != "number":
        raise ValueError(f"is a {_kind(value)}, which has no range of numbers: write its choices, or off")
    elif isinstance(value, int) and not stated.whole:
        raise ValueError("is a whole number, and the ends of its range are not: write both ends, or both as floats")


def _parse(text: str) -> Range:
    if text == "off":
        return Choices(())
    if interval := _INTERVAL.fullmatch(text):
        low, high = (number_of(end.strip()) for end in interval.groups()[:2])
        if low is None or high is None or isinstance(low, bool) or isinstance(high, bool):
            raise ValueError(f"{text!r} is no range: {HOW}")
        if low >= high:
            raise ValueError(f"the range {text!r} has no width: write the smaller number first")
        if interval[3] and low <= 0:
            raise ValueError(
                f"the range {text!r} is logarithmic and must begin above 0: leave out log, or begin higher"
            )
        return Interval(low, high, bool(interval[3]))
    words = [word.strip() for word in text.split(",")]
    if not all(words):
        raise ValueError(f"{text!r} is no range: {HOW}")
    return _choices([_word(word) for word in words])


def _choices(values: Iterable[Value]) -> Choices:
    found = tuple(values)
    if len(set(found)) < 2:
        raise ValueError(f"{found[0]!r} alone leaves no choice: write two or more, or off")
    return Choices(found)


def _word(word: str) -> Value:
    value = number_of(word)
    if value is not None:
        return value
    if word.lower() in _SWITCHES:
        return _SWITCHES[word.lower()]
    return word[1:-1] if len(word) > 1 and word[0] == word[-1] and word[0] in "\"'" else word


def _kind(value: Value) -> str:
    return "switch" if isinstance(value, bool) else "text" if isinstance(value, str) else "number"
