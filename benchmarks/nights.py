"""Simulated nights for the benchmarks of the keep rule: simulated metrics and curves, real decisions.

A night is a list of proposals with true effects. Runs are random numbers around the true metric; all decisions
(`decision.next_action`, the components of variance, the racing) are made by the campaign's own code.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from multiprocessing import Pool
from pathlib import Path
from typing import TypeVar

import numpy as np

from pytest_autoresearch.core.experiment import Direction
from pytest_autoresearch.core.loss_curve import CHECKPOINTS
from pytest_autoresearch.keeprule.blocks import Block, Blocks, Observation
from pytest_autoresearch.keeprule.decision import Step, needed, next_action
from pytest_autoresearch.keeprule.evidence import Evidence
from pytest_autoresearch.keeprule.noise import VAL_BPB_ON_A_GPU, Prior
from pytest_autoresearch.keeprule.racing import Racer, is_spared
from pytest_autoresearch.keeprule.rule import Rule

_Job = TypeVar("_Job")
_Done = TypeVar("_Done")
HERE = Path(__file__).parent


@dataclass(frozen=True, slots=True)
class Curves:
    """The errors of predicting a run's metric from its loss at each checkpoint, in the metric's unit.

    Attributes:
        drift: Standard deviation of the run's own error.
        shape: Standard deviation of the program's error, the same in all its runs.
        data: Standard deviation of the seed's error, common to all programs.
    """

    drift: tuple[float, ...]
    shape: tuple[float, ...]
    data: tuple[float, ...]

    @classmethod
    def load(cls, sd: float, effect: float, path: Path = HERE / "curves.json") -> Curves:
        """The measurements of `curves.py`, scaled to this standard deviation of a run and this median effect."""
        found = json.loads(path.read_text("utf-8"))["model"]
        units = {"drift": sd, "shape": effect, "data": sd}
        return cls(*(tuple(unit * x for x in found[name]) for name, unit in units.items()))


@dataclass(frozen=True, slots=True)
class World:
    """The settings of a night.

    Attributes:
        rule: The keep rule.
        sd: The standard deviation of a run.
        curves: The curves of runs, if they are raced.
        prior: The rule's prior of the noise.
        share: The seed's share of the variance of a run: a part that is common to all programs on the seed.
        fresh: Whether every run gets a seed of its own, whatever the rule asks for.
        redrawn: Whether every proposal changes what it draws from a seed, so that it shares nothing with others on it.
        inherited: How much of the residual on a seed a proposal has from its base (their correlation). A run again on
            the seed then gives the same number.
    """

    rule: Rule
    sd: float = 0.0004
    curves: Curves | None = None
    prior: Prior = VAL_BPB_ON_A_GPU
    share: float = 0.0
    fresh: bool = False
    redrawn: bool = False
    inherited: float = 0.0


@dataclass(slots=True)
class Played:
    """The result of a night.

    Attributes:
        costs: Runs until after the baseline and after each experiment; a stopped run counts by its share.
        truths: The true metric of the incumbent at these times.
        kept: The effects of the kept proposals.
        reported: The rule's estimate of the incumbent at the end.
        gains: True gains of at least half a standard deviation that were tried while racing was on.
        lost: How many of these gains were stopped in a run that would have passed.
        stopped: Number of stopped runs.
    """

    costs: list[float] = field(default_factory=list)
    truths: list[float] = field(default_factory=list)
    kept: list[float] = field(default_factory=list)
    reported: float = math.nan
    gains: int = 0
    lost: int = 0
    stopped: int = 0

    def truth_at(self, runs: float) -> float:
        """The true metric after a number of runs."""
        done = [truth for cost, truth in zip(self.costs, self.truths, strict=True) if cost <= runs + 1e-9]
        return done[-1] if done else self.truths[0]


class Night:
    """One night; `play` plays it."""

    def __init__(self, world: World, baseline: float, seed: int) -> None:
        self._world = world
        self._random = np.random.default_rng(seed)
        self._draws: list[float] = []
        self._truth = baseline
        self._shape: list[float] = []
        self._cost = 0.0
        self._racer = Racer()
        self._offsets: dict[int, list[float]] = {}
        self._seeds: dict[tuple[int, int], float] = {}  # by seed and, if redrawn, the program
        self._rests: dict[tuple[int, int], float] = {}  # by program and seed, where they are inherited
        self.played = Played()
        if world.curves:
            self._shape = self._walk(world.curves.shape)
        self._known: list[Observation] = []
        self.line: list[int] = [0]  # the kept proposals by number, the baseline first
        self._due = False
        self._seed = 0  # the last new one
        for _ in range(world.prior.baseline_runs if world.rule.looks else 1):
            self._run_incumbent(None)
        self._note()

    def play(self, effects: Iterable[float]) -> Played:
        """Try one proposal after the other."""
        start = self._truth
        for number, effect in enumerate(effects, 1):
            self._try(number, float(effect))
            self._note()
        gain = 0.0
        if len(self.line) > 1:
            gain = Blocks(self._known, self._world.prior).contrast(self.line[-1], self.line[0]).difference
        self.played.reported = start + gain
        return self.played

    def _note(self) -> None:
        self.played.costs.append(self._cost)
        self.played.truths.append(self._truth)

    def _try(self, number: int, effect: float) -> None:
        evidence = Evidence(
            self._world.rule, Direction.MINIMIZE, tuple(self._known), self.line[-1], number, prior=self._world.prior,
            number=number, line=tuple(self.line), due=self._due, kept=len(self.played.kept), tried=number - 1,
        )  # fmt: skip
        finished: list[tuple[int, tuple[float, ...], float]] = []
        counted = False
        shape = self._walk(self._world.curves.shape) if self._world.curves else []
        while True:
            action = next_action(evidence)
            if action.step is Step.RUN_INCUMBENT:
                evidence = evidence.plus_incumbent(*self._run_incumbent(action.seed))
                self._due = False
            elif action.step is Step.RUN_CANDIDATE:
                assert action.seed is not None
                seed = action.seed
                metric, losses = self._run(self._truth + effect, shape, seed, number)
                if self._world.curves and number > 8 and not counted:
                    counted = True
                    self.played.gains += effect < -self._world.sd / 2
                if self._stops(number, seed, losses, metric, evidence, effect):
                    self._known += evidence.runs
                    self._judged(finished, won=False)
                    return
                finished.append((seed, losses, metric))
                evidence = evidence.plus(seed, metric)
            else:
                self._known += evidence.runs
                self._judged(finished, won=action.step is Step.KEEP)
                if action.step is Step.KEEP:
                    self._truth += effect
                    self._shape = shape
                    self.played.kept.append(effect)
                    self.line.append(number)
                    self._due = self._world.rule.renew
                return

    def _run_incumbent(self, seed: int | None) -> tuple[int, float]:
        """A run of the incumbent on this seed or a new one: the seed and the metric."""
        if seed is None:
            self._seed += 1
            seed = self._seed
        metric, losses = self._run(self._truth, self._shape, seed, self.line[-1])
        self._known.append(Observation(self.line[-1], Block(seed), metric))
        if self._world.curves:
            self._racer.learn(seed, losses, metric, won=True)
        return seed, metric

    def _judged(self, finished: Sequence[tuple[int, tuple[float, ...], float]], won: bool) -> None:
        if self._world.curves:
            for seed, losses, metric in finished:
                self._racer.learn(seed, losses, metric, won)

    def _stops(
        self, number: int, seed: int, losses: tuple[float, ...], metric: float, evidence: Evidence, effect: float
    ) -> bool:
        """Whether racing stops this run, which is already counted as a whole run."""
        if not self._world.curves:
            return False
        bar = needed(evidence, seed)
        for at, share in enumerate(CHECKPOINTS):
            limit = self._racer.limit(at, seed, bar)
            if limit is not None and losses[at] > limit:
                if is_spared(number):
                    return False
                self._cost -= 1 - share
                self.played.stopped += 1
                self.played.lost += effect < -self._world.sd / 2 and metric < bar
                return True
        return False

    def _run(self, truth: float, shape: Sequence[float], seed: int, program: int) -> tuple[float, tuple[float, ...]]:
        """A complete run: its metric and its losses at the checkpoints, in the metric's unit."""
        self._cost += 1
        sd, share, curves = self._world.sd, self._world.share, self._world.curves
        drawn = (seed, program if self._world.redrawn else 0)
        if share and (self._world.fresh or drawn not in self._seeds):
            self._seeds[drawn] = sd * math.sqrt(share) * self._normal()
        rest = self._rest(program, seed) if self._world.inherited else self._normal()
        metric = truth + self._seeds.get(drawn, 0.0) + sd * math.sqrt(1 - share) * rest
        if curves is None:
            return metric, ()
        if seed not in self._offsets:
            self._offsets[seed] = [data * self._normal() for data in curves.data]
        parts = zip(self._walk(curves.drift), shape, self._offsets[seed], strict=True)
        return metric, tuple(metric + sum(away) for away in parts)

    def _rest(self, program: int, seed: int) -> float:
        """The standardised residual of a program on a seed: partly that of its base, which was the head before it."""
        if (program, seed) not in self._rests:
            before = [one for one in self.line if one < program]
            own, share = self._normal(), self._world.inherited
            if before:
                own = share * self._rest(before[-1], seed) + math.sqrt(1 - share * share) * own
            self._rests[program, seed] = own
        return self._rests[program, seed]

    def _walk(self, deviations: Sequence[float]) -> list[float]:
        """Correlated random numbers with these standard deviations: each is 0.8 of the one before, plus noise."""
        at = self._normal()
        walked = []
        for deviation in deviations:
            walked.append(deviation * at)
            at = 0.8 * at + 0.6 * self._normal()
        return walked

    def _normal(self) -> float:
        if not self._draws:
            self._draws = self._random.standard_normal(4096).tolist()
        return self._draws.pop()


def play(job: tuple[World, float, Sequence[float], int]) -> Played:
    """One night: world, true baseline, effects, seed."""
    world, baseline, effects, seed = job
    return Night(world, baseline, seed).play(effects)


def play_all(jobs: Sequence[tuple[World, float, Sequence[float], int]], processes: int) -> list[Played]:
    """Many nights, distributed over processes."""
    return spread(play, jobs, processes)


def spread(work: Callable[[_Job], _Done], jobs: Sequence[_Job], processes: int) -> list[_Done]:
    """The results of all jobs, in order."""
    if processes < 2:
        return [work(job) for job in jobs]
    with Pool(processes) as pool:
        return pool.map(work, jobs, chunksize=max(1, len(jobs) // (8 * processes)))
