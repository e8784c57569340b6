"""Estimates programs from runs on shared seeds: metric = program + block + residual.

A block is a seed at one time: its part of the metric is common to all programs that ran in it, so it cancels where two
programs are compared in the same block. Programs are fixed effects, blocks are random. The estimates are those of
C. R. Henderson's mixed-model equations (Biometrics 31, 1975, 423-447); the components of variance are those of his
method 3 (Biometrics 9, 1953, 226-252). Most programs have few blocks and most blocks few programs. So the equations are
sparse, and the time for them grows with the number of runs, not with its cube.

Pure: numbers in, numbers out. Knows nothing of verdicts.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Collection, Hashable, Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from heapq import heapify, heappop, heappush
from typing import NamedTuple

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
            system, pivots = self._solver if len(own) > 1 < len(its) else self._solver_with(own, its)
            apart = [0.0] * len(system.places)
            for cells, sign in ((own, 1.0), (its, -1.0)):
                for block, (weight, _) in cells.items():
                    apart[system.places[block]] += sign * weight / _weight(cells)
            solved = system.solve(pivots, apart)
            difference -= math.fsum(map(_product, solved, system.right))
            variance += math.fsum(map(_product, solved, apart))
        error = math.sqrt(self._residual2 * variance)
        return Contrast(difference * self._scale, error * self._scale, self._degrees)

    @cached_property
    def _solver(self) -> tuple[_System, list[_Pivot]]:
        return self._solver_with()

    def _solver_with(self, *single: _Cells) -> tuple[_System, list[_Pivot]]:
        """The equations and their factors, of these programs and of all that ran in two blocks or more."""
        system = _System([cells for cells in self._cells.values() if len(cells) > 1 or cells in single])
        return system, system.factors(max(self._residual2 / self._block2, _LEAST_RATIO))

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


class _Pivot(NamedTuple):
    """One unknown, eliminated.

    Attributes:
        at: Its row.
        value: Its diagonal when it was eliminated.
        row: What it shared with each unknown that was left then.
    """

    at: int
    value: float
    row: dict[int, float]


class _System:
    """The equations: a row for each block, then one for each program.

    Attributes:
        places: The row of each block.
        right: The right side, of the blocks; with each run's deviation from its program's mean, that of programs is 0.
        rank: How many blocks' effects can be told from the programs'.
    """

    def __init__(self, programs: Sequence[_Cells]) -> None:
        self.places: dict[Block, int] = {}
        for cells in programs:
            for block in cells:
                self.places.setdefault(block, len(self.places))
        self._programs = programs
        self.right = [0.0] * len(self.places)
        group = list(range(len(self.places)))  # blocks that programs link are in one group; each lacks one rank

        def first(at: int) -> int:
            while group[at] != at:
                group[at] = at = group[group[at]]
            return at

        for cells in programs:
            mean, linked = _mean(cells), self.places[next(iter(cells))]
            for block, (weight, value) in cells.items():
                self.right[self.places[block]] += weight * (value - mean)
                group[first(self.places[block])] = first(linked)
        self._grounds = {first(at) for at in range(len(group))}
        self.rank = len(group) - len(self._grounds)

    def explained(self) -> float:
        """The sum of squares that fixed block effects explain."""
        solved = self.solve(self.factors(0.0, self._grounds), self.right)
        return math.fsum(map(_product, solved, self.right))

    def factors(self, ratio: float, without: Collection[int] = ()) -> list[_Pivot]:
        """The eliminated unknowns, those with few others first.

        Args:
            ratio: The variance of the residual by that of the blocks; 0 for fixed blocks.
            without: Blocks whose effect is 0.
        """
        size = len(self.places)
        rows: list[dict[int, float]] = [{at: ratio} for at in range(size)]
        for program, cells in enumerate(self._programs, start=size):
            known = {self.places[block]: weight for block, (weight, _) in cells.items()}
            for at, weight in known.items():
                rows[at][at] += weight
                rows[at][program] = weight
            left = {at: weight for at, weight in known.items() if at not in without}
            rows.append({**left, program: math.fsum(known.values())})
        for at in without:
            rows[at] = {}
        return _eliminated(rows)

    def solve(self, pivots: Sequence[_Pivot], right: Sequence[float]) -> list[float]:
        """The blocks' effects for a right side."""
        found = [*right, *[0.0] * len(self._programs)]
        for at, value, row in pivots:
            found[at] /= value
            if found[at]:
                for beside, shared in row.items():
                    found[beside] -= shared * found[at]
        for at, value, row in reversed(pivots):
            found[at] -= math.fsum(shared * found[beside] for beside, shared in row.items()) / value
        known = {pivot.at for pivot in pivots}
        return [found[at] if at in known else 0.0 for at in range(len(right))]


def _eliminated(rows: list[dict[int, float]]) -> list[_Pivot]:
    """The pivots of a symmetric, positive definite matrix, given by its non-zero elements; empty rows are left out."""
    least = [1e-14 * row.get(at, 0.0) for at, row in enumerate(rows)]
    waiting = [(len(row), at) for at, row in enumerate(rows) if row]
    heapify(waiting)
    pivots: list[_Pivot] = []
    done = [False] * len(rows)
    while waiting:
        count, at = heappop(waiting)
        if done[at] or count != len(rows[at]):
            continue  # it shares more or less by now, and waits with that number too
        done[at] = True
        row, rows[at] = rows[at], {}
        value = max(row.pop(at), least[at])
        for beside, shared in row.items():
            other, part = rows[beside], shared / value
            del other[at]
            for third, more in row.items():
                other[third] = other.get(third, 0.0) - part * more
            heappush(waiting, (len(other), beside))
        pivots.append(_Pivot(at, value, row))
    return pivots


def _weight(cells: _Cells) -> float:
    return math.fsum(weight for weight, _ in cells.values())


def _mean(cells: _Cells) -> float:
    return math.fsum(weight * value for weight, value in cells.values()) / _weight(cells)


def _product(one: float, other: float) -> float:
    return one * other
