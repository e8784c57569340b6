"""Designs that measure several proposals in one set of runs, and the estimate of each proposal's effect.

In a Plackett-Burman design (Biometrika 33, 1946, 305-325) every run has about half of the proposals, and every two
proposals are together in a quarter of the runs. So all runs tell of each effect: in n runs its standard error is
`2 s / sqrt(n)`, where a pair of single runs gives `sqrt(2) s`. This assumes that effects add up.

Pure: numbers in, numbers out. Gains are positive where the metric is better, whatever its direction.
"""

from __future__ import annotations

import math
from collections.abc import Hashable, Sequence
from dataclasses import dataclass

from pytest_autoresearch.core.extras import need
from pytest_autoresearch.keeprule.blocks import Components
from pytest_autoresearch.keeprule.effects import Effect
from pytest_autoresearch.keeprule.linear import cholesky, solve

SIZES = (8, 12, 16, 20, 24)  # runs of a design, the one without any proposal included
MOST = SIZES[-1] - 1  # proposals
USUAL = 15  # the best in benchmarks/strategies.py
LEAST = 4  # fewer are measured one at a time


@dataclass(frozen=True, slots=True)
class Row:
    """One run of a design.

    Attributes:
        has: The proposals in it, by place.
        block: What it shares with other runs, such as its seed.
        gain: By its metric; any origin, the same for all rows.
    """

    has: frozenset[int]
    block: Hashable
    gain: float


def plan(proposals: int) -> tuple[frozenset[int], ...]:
    """The runs of the smallest design for this many proposals; the first has none of them, so it is the incumbent's.

    Raises:
        ValueError: There are no proposals, or more than `MOST`.
        UserError: The library of designs is not installed.
    """
    if not 0 < proposals <= MOST:
        raise ValueError(f"a design is for 1 to {MOST} proposals, not {proposals}")
    need("batch", "pydoe", "measuring several proposals together")
    from pydoe import pbdesign

    levels = pbdesign(next(size for size in SIZES if size > proposals) - 1)
    # Which level of a column means that a run has the proposal is free: here, the one that the first run lacks.
    return tuple(frozenset(at for at in range(proposals) if row[at] != levels[0][at]) for row in levels)


def estimate(rows: Sequence[Row], proposals: int, noise: Components) -> tuple[Effect, ...]:
    """The effect of each proposal by least squares, with a level for each block.

    Args:
        noise: The components of variance, from replicates. What the rows themselves leave unexplained is added to it.
    """
    blocks = {block: proposals + at for at, block in enumerate(dict.fromkeys(row.block for row in rows))}
    size = proposals + len(blocks)
    origin = rows[0].gain if rows else 0.0
    scale = 2 * max((abs(row.gain / 2 - origin / 2) for row in rows), default=0.0) or 1.0
    moved = [row.gain / scale - origin / scale for row in rows]
    matrix, right = [[0.0] * size for _ in range(size)], [0.0] * size
    for row, gain in zip(rows, moved, strict=True):
        places = [*sorted(row.has), blocks[row.block]]
        for one in places:
            right[one] += gain
            for other in places:
                matrix[one][other] += 1.0
    silent = [at for at in range(proposals) if not matrix[at][at]]
    for at in silent:
        matrix[at][at] = 1.0
    lower = cholesky(matrix)
    solved = solve(lower, right)
    left = math.fsum(
        (gain - math.fsum(solved[at] for at in (*row.has, blocks[row.block]))) ** 2
        for row, gain in zip(rows, moved, strict=True)
    )
    freedom = max(len(rows) - (size - len(silent)), 0)
    degrees = noise.degrees + freedom
    known = (noise.residual / scale) ** 2 * noise.degrees
    residual = math.sqrt((known + (left if freedom else 0.0)) / degrees) if degrees else 0.0
    found = []
    for at in range(proposals):
        unit = [0.0] * size
        unit[at] = 1.0
        factor = math.sqrt(solve(lower, unit)[at])
        # Nothing separates the proposal from others or from its block if its variance is that of a tiny pivot.
        lost = at in silent or factor > 1e3
        found.append(
            Effect(0.0, math.inf, degrees) if lost else Effect(solved[at] * scale, residual * factor * scale, degrees)
        )
    return tuple(found)
