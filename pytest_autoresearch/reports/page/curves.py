"""Training curves from training logs: a bounded number of steps and losses. Pure: text in, numbers out."""

from __future__ import annotations

import itertools
import math
import re
from array import array
from collections.abc import Sequence
from dataclasses import dataclass

_STEP = re.compile(
    r"\bstep[\s:=#]{0,8}(?P<step>\d{1,12})\b(?:[^\n]{0,20}?\((?P<share>\d{1,3}(?:\.\d{1,6})?)%\))?"
    r"[^\n]{0,200}?\bloss[\s:=]{1,8}(?P<loss>[-+]?\d[\d.]{0,20}(?:e[-+]?\d{1,3})?)",
    re.IGNORECASE,
)
_DIGITS = 5


@dataclass(frozen=True, slots=True)
class Curve:
    """The loss of one training process over its steps.

    Attributes:
        log: The log's name.
        steps: The steps.
        losses: The mean loss of the steps up to each of `steps`.
        shares: The share of the budget at each step, in percent; empty if the log does not have it.
    """

    log: str
    steps: Sequence[int]
    losses: Sequence[float]
    shares: Sequence[float] = ()


def curve(log: str, text: str, most: int) -> Curve | None:
    """The curve in a log's text, with at most `most` points including the last step; None if there is none."""
    found: list[tuple[int, float, float]] = []
    for line in text.splitlines():
        if (match := _STEP.search(line)) is None:
            continue
        try:
            loss = float(match["loss"])
        except ValueError:
            continue
        if math.isfinite(loss):
            found.append((int(match["step"]), loss, float(match["share"]) if match["share"] else math.nan))
    if not found:
        return None
    drawn = [_mean(part) for part in _parts(found, most)]
    shares = array("d", [round(share, 2) for _, _, share in drawn])
    known = all(map(math.isfinite, shares)) and shares[-1] > shares[0]
    losses = array("d", [float(f"{loss:.{_DIGITS}g}") for _, loss, _ in drawn])  # a third of a tuple's size
    return Curve(log, array("q", [step for step, _, _ in drawn]), losses, shares if known else ())


def _parts(found: list[tuple[int, float, float]], most: int) -> list[list[tuple[int, float, float]]]:
    """The points in at most `most` parts of similar size; the first point stays alone, where the loss falls fastest."""
    first, rest = found[:1], found[1:]
    count = min(len(rest), max(most - 1, 1))
    bounds = [part * len(rest) // count for part in range(count + 1)] if count else []
    return [first, *(rest[low:high] for low, high in itertools.pairwise(bounds))]


def _mean(part: list[tuple[int, float, float]]) -> tuple[int, float, float]:
    """The last step of a part, its mean loss and its last share."""
    return part[-1][0], math.fsum(loss for _, loss, _ in part) / len(part), part[-1][2]
