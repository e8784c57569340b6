"""What each keep of a stack is worth now: programs measured on the same seeds, with and without the keep.

Pure: metrics in, differences and words out. Knows nothing of how a run is made.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum

from pytest_autoresearch.core.experiment import Direction, Experiment
from pytest_autoresearch.keeprule import student_t
from pytest_autoresearch.keeprule.audit import COVERAGE, Difference, moved
from pytest_autoresearch.keeprule.blocks import Block, Blocks, Observation

RUNS = 5  # of each program
LEAST_RUNS = 2

Metrics = Mapping[str, Mapping[int, float]]
"""The metrics of programs, by the program's name and the seed."""


class Standing(StrEnum):
    """Whether a keep earns its place."""

    HELPS = "helps"  # the whole 95% interval of its effect is a gain
    UNCLEAR = "unclear"  # it measures as a gain, but could be none
    IDLE = "no longer helps"  # the program is as good without it, or better
    BOUND = "cannot be left out"  # later keeps need it, so it has no effect of its own


@dataclass(frozen=True, slots=True)
class Effect:
    """A keep and its effect in the stack.

    Attributes:
        keep: The kept experiment.
        now: The gain of the stack over the stack without it; None if there is no such program.
        why: Why there is none.
    """

    keep: Experiment
    now: Difference | None
    why: str = ""

    @property
    def standing(self) -> Standing:
        if self.now is None:
            return Standing.BOUND
        if self.now.gain <= 0:
            return Standing.IDLE
        return Standing.HELPS if self.now.gain > self.now.margin else Standing.UNCLEAR

    @property
    def words(self) -> str:
        """The effect with its interval, or why there is none."""
        return self.why if self.now is None else f"{moved(self.now, self.keep.direction)} ({self.standing})"


@dataclass(frozen=True, slots=True)
class Transfer:
    """The gain of the final program over the first one under other conditions.

    Attributes:
        name: The conditions, as the user named them.
        gain: None if too many runs crashed.
        why: Why there is none.
    """

    name: str
    gain: Difference | None
    why: str = ""

    @property
    def words(self) -> str:
        """Whether the gain is there, too."""
        if self.gain is None:
            return f"cannot be compared: {self.why}"
        if self.gain.gain > self.gain.margin:
            return "the gain transfers"
        return "unclear" if self.gain.gain > 0 else "the gain does not transfer"


@dataclass(frozen=True, slots=True)
class Findings:
    """Everything that was measured of a finished campaign.

    Attributes:
        tag: The campaign.
        line: The baseline and the keeps.
        seeds: How many seeds each program ran on.
        whole: The gain of the final program over the baseline.
        effects: Of each keep, in the order of the branch.
        dropped: The numbers of the keeps that the final program lacks.
        final: The gain of the final program over the whole stack; None if nothing was dropped.
        transfers: The gain under other conditions.
    """

    tag: str
    line: tuple[Experiment, ...]
    seeds: int
    whole: Difference | None
    effects: tuple[Effect, ...]
    dropped: tuple[int, ...] = ()
    final: Difference | None = None
    transfers: tuple[Transfer, ...] = ()

    @property
    def direction(self) -> Direction:
        return self.line[0].direction

    @property
    def idle(self) -> list[int]:
        """The keeps that no longer earn their place."""
        return [one.keep.number for one in self.effects if one.standing is Standing.IDLE]


def gain(metrics: Metrics, program: str, over: str, direction: Direction) -> Difference | None:
    """The gain of one program over another, from all programs that ran on the same seeds.

    Returns:
        None if one of the two has fewer than two runs.
    """
    if min(len(metrics.get(name, ())) for name in (program, over)) < LEAST_RUNS:
        return None
    blocks = Blocks(_observations(metrics))
    found = blocks.contrast(program, over)
    value = direction.gain(found.difference, 0.0)
    if found.error == 0:
        return Difference(value, 0.0, 0.0 if value > 0 else 1.0, math.inf)
    if not (math.isfinite(found.error) and math.isfinite(value) and found.degrees > 0):
        return Difference(value, math.inf, 0.5, 1.0)
    margin = student_t.quantile(0.5 + COVERAGE / 2, found.degrees) * found.error
    return Difference(value, margin, student_t.cdf(-value / found.error, found.degrees), found.degrees)


def _observations(metrics: Metrics) -> Iterable[Observation]:
    for name, runs in metrics.items():
        yield from (Observation(name, Block(seed), metric) for seed, metric in runs.items())


def order_of_turns(programs: Sequence[str], seeds: Sequence[int]) -> list[tuple[str, int]]:
    """The plan of the runs: one seed after the other, every second one backwards, so that a steady drift cancels."""
    rows = (programs if turn % 2 == 0 else programs[::-1] for turn in range(len(seeds)))
    return [(program, seed) for seed, row in zip(seeds, rows, strict=True) for program in row]
