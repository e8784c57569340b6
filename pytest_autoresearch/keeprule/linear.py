"""Small systems of linear equations with a symmetric positive definite matrix, in plain Python. Pure."""

from __future__ import annotations

import math
from collections.abc import Sequence
from operator import mul


def cholesky(matrix: Sequence[Sequence[float]], ratio: float = 0.0) -> list[list[float]]:
    """The lower triangle L with `L L' = matrix + ratio * I`, which must be positive definite or nearly so.

    What a singular matrix leaves open gets a tiny pivot, so that its solution is finite and its variance huge.
    """
    lower: list[list[float]] = []
    for at, row in enumerate(matrix):
        made: list[float] = []
        for column in range(at):
            above = lower[column]
            made.append((row[column] - math.fsum(map(mul, made, above[:column]))) / above[column])
        rest = row[at] + ratio - math.fsum(value * value for value in made)
        made.append(math.sqrt(max(rest, 1e-14 * (row[at] + ratio))))
        lower.append(made)
    return lower


def solve(lower: Sequence[Sequence[float]], right: Sequence[float]) -> list[float]:
    """The solution x of `L L' x = right`."""
    found: list[float] = []
    for row, value in zip(lower, right, strict=True):
        found.append((value - math.fsum(map(mul, row, found))) / row[len(found)])
    for at in reversed(range(len(found))):
        below = math.fsum(lower[under][at] * found[under] for under in range(at + 1, len(found)))
        found[at] = (found[at] - below) / lower[at][at]
    return found
