"""Everything that a decision of the keep rule depends on, and what follows from it. Pure."""

from __future__ import annotations

import math
from collections.abc import Hashable
from dataclasses import dataclass, replace
from functools import cached_property

from pytest_autoresearch.core.experiment import Direction, weighted
from pytest_autoresearch.keeprule import student_t
from pytest_autoresearch.keeprule.blocks import Block, Blocks, Components, Contrast, Observation
from pytest_autoresearch.keeprule.noise import NO_PRIOR, Prior, Sample
from pytest_autoresearch.keeprule.rule import Rule

SELECTED_WEIGHT = 0.5  # of a run that selected its program, as in `weighted`


@dataclass(frozen=True)  # no slots, for the cached properties
class Evidence:
    """Everything that a decision depends on.

    Attributes:
        rule: The keep rule.
        direction: Which way the metric improves.
        known: The runs of the campaign that count, without the candidate's in this experiment.
        incumbent: The program to beat; it has a run in `known`.
        candidate: The program on trial.
        runs: The candidate's runs in this experiment, in order. The first, which selects it, has half weight.
        prior: What is believed of the noise before any run.
        exact: Whether the metric is deterministic, so that one run is enough.
        time: Names the present; see `Block`.
        number: The experiment's number; it rotates the seeds, so that no single seed decides on all candidates.
        line: The earlier incumbents, the baseline first.
        avoided: Seeds by which the candidate was selected before.
        due: Whether the additional run of the incumbent after its keep is still missing.
        renewed: Whether the incumbent has run since the candidate's last run.
        alone: Whether the incumbent cannot be run, because its runs crashed.
        simpler: Whether the candidate is a simpler program, which is kept if it is no worse.
        kept: The number of proposals that the campaign has kept so far.
        tried: The number of proposals that the campaign has judged so far.
    """

    rule: Rule
    direction: Direction
    known: tuple[Observation, ...]
    incumbent: Hashable
    candidate: Hashable
    runs: tuple[Observation, ...] = ()
    prior: Prior = NO_PRIOR
    exact: bool = False
    time: str = ""
    number: int = 0
    line: tuple[Hashable, ...] = ()
    avoided: frozenset[int] = frozenset()
    due: bool = False
    renewed: bool = False
    alone: bool = False
    simpler: bool = False
    kept: int = 0
    tried: int = 0

    def plus(self, seed: int, metric: float) -> Evidence:
        """The evidence with one more run of the candidate."""
        weight = 1.0 if self.runs else SELECTED_WEIGHT
        run = Observation(self.candidate, Block(seed, self.time), metric, weight)
        return replace(self, runs=(*self.runs, run), renewed=False)

    def plus_incumbent(self, seed: int, metric: float) -> Evidence:
        """The evidence with one more run of the incumbent, whose metric is finite."""
        run = Observation(self.incumbent, Block(seed, self.time), metric)
        return replace(self, known=(*self.known, run), due=False, renewed=True)

    @property
    def looks(self) -> int:
        """The number of confirmations so far."""
        return max(len(self.runs) - 1, 0)

    @property
    def single(self) -> bool:
        """Whether one run decides."""
        return self.exact or not self.rule.looks

    @property
    def metric(self) -> float:
        """The candidate's estimate: the mean of its runs. The first, which selected it, has half weight."""
        if not self.runs:
            return math.nan
        screen, *confirmations = (run.metric for run in self.runs)
        return weighted(screen, confirmations) if confirmations else float(screen)

    @cached_property
    def blocks(self) -> Blocks:
        """The runs of the campaign, the candidate's among them."""
        return Blocks((*self.known, *self.runs), self.prior)

    @property
    def components(self) -> Components:
        """The components of variance of a run."""
        return self.blocks.components

    @cached_property
    def contrast(self) -> Contrast:
        """The candidate's metric less the incumbent's. If one run decides, its error is zero."""
        if not math.isfinite(self.metric):
            return Contrast(math.nan, math.nan, 0.0)
        if self.single:
            return Contrast(self.metric - self.standing, 0.0, 0.0)
        return self.blocks.contrast(self.candidate, self.incumbent)

    @property
    def standing(self) -> float:
        """The incumbent's mean on the candidate's seeds; without runs there, over all of its seeds."""
        own = [run for run in self.known if run.program == self.incumbent]
        own = [run for run in own if not run.selected] or own
        seeds = {run.block.seed for run in self.runs}
        return Sample.of(run.metric for run in ([run for run in own if run.block.seed in seeds] or own)).mean

    @property
    def best(self) -> float:
        """The metric to beat: the incumbent's estimate on the candidate's seeds."""
        difference = self.contrast.difference
        return self.standing if self.single or math.isnan(difference) else self.metric - difference

    @property
    def gain(self) -> float:
        """The candidate's improvement over the incumbent; positive is better, whatever the direction."""
        return self.direction.gain(self.contrast.difference, 0.0)

    @property
    def p(self) -> float:
        """The probability that the candidate is better; NaN if unknown."""
        return self.p_of_losing_less_than(0.0)

    def p_of_losing_less_than(self, allowed: float) -> float:
        """The probability that the candidate is worse by less than `allowed`, in the metric's unit; NaN if unknown."""
        gain, error, degrees = self.gain + allowed, self.contrast.error, self.contrast.degrees
        if math.isnan(gain) or not (degrees or self.single):
            return math.nan
        if error == 0:
            return 1.0 if gain > 0 else 0.5 if gain == 0 else 0.0
        if math.isinf(error):
            return math.nan if math.isinf(gain) else 0.5
        return student_t.cdf(gain / error, degrees)

    @property
    def common_seeds(self) -> int:
        """The number of the candidate's seeds if the incumbent has run on each of them, else 0."""
        own = {run.block for run in self.known if run.program == self.incumbent}
        seeds = {run.block for run in self.runs}
        return len(seeds) if seeds <= own else 0
