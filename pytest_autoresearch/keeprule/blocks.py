"""Estimates programs from runs on shared seeds: metric = program + block + residual.

A block is a seed at one time: its part of the metric is common to all programs that ran in it, so it cancels where two
programs are compared in the same block. Programs are fixed effects, blocks are random. The estimates are those of
C. R. Henderson's mixed-model equations (Biometrics 31, 1975, 423-447), with the programs absorbed, so that there is one
unknown for each block; the components of variance are those of his method 3 (Biometrics 9, 1953, 226-252).

Pure: numbers in, numbers out. Knows nothing of verdicts.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Hashable, Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from operator import mul
from typing import NamedTuple

from pytest_autoresearch.keeprule.linear import cholesky, solve
from pytest_autoresearch.keeprule.noise import NO_PRIOR, Prior

_UNSPLIT = 1.0  # degrees of freedom with which all of the variance is believed to be residual
_LEAST_RATIO = 1e-12  # of the two variances, so that the equations can be solved


class Block(NamedTuple):
    """What runs share that were made on one seed at about the same time.

    Attributes:
        seed: The seed.
        time: Names the time; runs of different times share nothing, because the machine may have changed.
    """

    seed: int
    time: str = ""


@dataclass(frozen=True, slots=True)
class Observation:
    """The metric of one run.

    Attributes:
        program: The commit.
        block: The seed and the time of the run.
        metric: A finite number.
        weight: The weight: 1, or less for a run that selected its program.
    """

    program: Hashable
    block: Block
    metric: float
    weight: float = 1.0

    @property
    def selected(self) -> bool:
        """Whether the run selected its program, so that its metric is biased by luck."""
        return self.weight < 1


@dataclass(frozen=True, slots=True)
class Components:
    """The components of variance of one run, as standard deviations in the metric's unit.

    Attributes:
        residual: The part of the run alone.
        block: The part that all programs in a block share.
        degrees: The degrees of freedom of `residual`; 0 if nothing is known.
    """

    residual: float
    block: float
    degrees: float


@dataclass(frozen=True, slots=True)
class Contrast:
    """The difference of two programs.

    Attributes:
        difference: The metric of the first minus that of the second.
        error: Its standard error.
        degrees: The degrees of freedom of `error`.
    """

    difference: float
    error: float
    degrees: float


_Cells = dict[Block, tuple[float, float]]  # one program's runs: the weight and the mean in each block


class Blocks:
    """The runs of a campaign.

    Args:
        observations: All runs that count.
        prior: What is believed of the residual before any run.
        components: The components of variance if they are not to be estimated from these runs.
    """

    def __init__(
        self, observations: Iterable[Observation], prior: Prior = NO_PRIOR, components: Components | None = None
    ) -> None:  # fmt: skip
        given = list(observations)
        self._prior = prior
        self._start = given[0].metric if given else 0.0
        largest = max((abs(one.metric / 2 - self._start / 2) for one in given), default=0.0)
        self._scale = (
            min(max(2 * largest, prior.sd), sys.float_info.max) or 1.0
        )  # no square of a scaled metric overflows
        cells: dict[Hashable, _Cells] = {}
        for one in given:
            weight, value = cells.setdefault(one.program, {}).get(one.block, (0.0, 0.0))
            whole = weight + one.weight
            moved = 2 * ((one.metric / 2 - self._start / 2) / self._scale)
            cells[one.program][one.block] = (whole, value + (moved - value) * one.weight / whole)
        self._cells = cells
        if components is None:
            self._residual2, self._block2, self._degrees = self._variances()
        else:
            residual, block = components.residual / self._scale, components.block / self._scale
            self._residual2, self._block2, self._degrees = residual * residual, block * block, components.degrees

    @property
    def components(self) -> Components:
        """The components of variance, from every program that ran in two blocks or more."""
        scale = self._scale
        return Components(math.sqrt(self._residual2) * scale, math.sqrt(self._block2) * scale, self._degrees)

    def contrast(self, one: Hashable, other: Hashable) -> Contrast:
        """The difference of two programs, each with a run at least."""
        own, its = self._cells[one], self._cells[other]
        variance = 1 / _weight(own) + 1 / _weight(its)
        difference = _mean(own) - _mean(its)
        if self._block2 > 0:
            system, lower = self._solver if len(own) > 1 < len(its) else self._solver_with(own, its)
            apart = [0.0] * len(system.places)
            for cells, sign in ((own, 1.0), (its, -1.0)):
                for block, (weight, _) in cells.items():
                    apart[system.places[block]] += sign * weight / _weight(cells)
            solved = solve(lower, apart)
            difference -= math.fsum(map(mul, solved, system.right))
            variance += math.fsum(map(mul, solved, apart))
        error = math.sqrt(self._residual2 * variance)
        return Contrast(difference * self._scale, error * self._scale, self._degrees)

    @cached_property
    def _solver(self) -> tuple[_System, list[list[float]]]:
        return self._solver_with()

    def _solver_with(self, *single: _Cells) -> tuple[_System, list[list[float]]]:
        """The equations and their factor, of these programs and of all that ran in two blocks or more."""
        system = _System([cells for cells in self._cells.values() if len(cells) > 1 or cells in single])
        return system, cholesky(system.matrix, max(self._residual2 / self._block2, _LEAST_RATIO))

    def _variances(self) -> tuple[float, float, float]:
        """Residual and block variance, and the degrees of freedom of the former; scaled."""
        repeated = [cells for cells in self._cells.values() if len(cells) > 1]
        believed = (self._prior.sd / self._scale) ** 2
        inside = math.fsum(
            weight * (value - mean) ** 2
            for cells in repeated
            for mean in (_mean(cells),)
            for weight, value in cells.values()
        )
        freedom = sum(len(cells) - 1 for cells in repeated)
        known = freedom + self._prior.freedom
        if not known:
            return 0.0, 0.0, 0.0
        whole = (inside + self._prior.freedom * believed) / known
        if not freedom:
            return whole, 0.0, self._prior.freedom
        system = _System(repeated)
        rest = max(0.0, inside - system.explained())
        left = freedom - system.rank
        degrees = left + self._prior.freedom + _UNSPLIT
        residual2 = (rest + self._prior.freedom * believed + _UNSPLIT * whole) / degrees
        spread = math.fsum(
            weight - weight * weight / _weight(cells) for cells in repeated for weight, _ in cells.values()
        )
        return residual2, max(0.0, (inside - freedom * residual2) / spread), degrees


class _System:
    """The equations for the blocks' effects, with the programs absorbed: `(matrix + ratio * I) effects = right`.

    Attributes:
        places: The row of each block.
        rank: The rank of `matrix`.
    """

    def __init__(self, programs: Sequence[_Cells]) -> None:
        self.places: dict[Block, int] = {}
        for cells in programs:
            for block in cells:
                self.places.setdefault(block, len(self.places))
        size = len(self.places)
        self.matrix = [[0.0] * size for _ in range(size)]
        self.right = [0.0] * size
        group = list(range(size))  # blocks that programs link are in one group; each group lacks one rank

        def first(at: int) -> int:
            while group[at] != at:
                at = group[at]
            return at

        for cells in programs:
            whole, mean = _weight(cells), _mean(cells)
            rows = [(self.places[block], weight, value) for block, (weight, value) in cells.items()]
            for at, weight, value in rows:
                self.right[at] += weight * (value - mean)
                self.matrix[at][at] += weight
                group[first(at)] = first(rows[0][0])
                for beside, other, _ in rows:
                    self.matrix[at][beside] -= weight * other / whole
        self._grounds = {first(at) for at in range(size)}
        self.rank = size - len(self._grounds)

    def explained(self) -> float:
        """The sum of squares that fixed block effects explain."""
        free = [at for at in range(len(self.right)) if at not in self._grounds]
        if not free:
            return 0.0
        matrix = [[self.matrix[row][column] for column in free] for row in free]
        right = [self.right[at] for at in free]
        return math.fsum(map(mul, solve(cholesky(matrix, 0.0), right), right))


def _weight(cells: _Cells) -> float:
    return math.fsum(weight for weight, _ in cells.values())


def _mean(cells: _Cells) -> float:
    return math.fsum(weight * value for weight, value in cells.values()) / _weight(cells)
