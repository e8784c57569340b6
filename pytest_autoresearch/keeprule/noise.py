"""How much the metric differs between runs of one program: what is measured of it, and what is believed before.

Pure: numbers in, numbers out. Knows nothing of verdicts.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from functools import reduce

EXACT = 1e-7  # a metric that differs by less than this share of itself between seeds is deterministic


@dataclass(frozen=True, slots=True)
class Sample:
    """Runs of one commit on seeds that differ. A run that was chosen for its metric is not for here.

    Attributes:
        runs: How many.
        mean: Of their metrics; 0 where there are none.
        spread: The root of the sum of the squared differences from the mean. A root, since the squares of a metric
            near the ends of what a number can hold would leave it.
    """

    runs: int = 0
    mean: float = 0.0
    spread: float = 0.0

    @classmethod
    def of(cls, metrics: Iterable[float]) -> Sample:
        """The sample of these."""
        return reduce(cls.plus, metrics, cls())

    def plus(self, metric: float) -> Sample:
        """The sample with one run more."""
        runs = self.runs + 1
        if runs == 1:
            return Sample(1, float(metric))
        away = metric - self.mean
        if math.isinf(away) and math.isfinite(metric):  # further apart than a number can say
            return Sample(runs, self.mean * (self.runs / runs) + metric / runs, math.inf)
        return Sample(runs, self.mean + away / runs, math.hypot(self.spread, away * math.sqrt(self.runs / runs)))


@dataclass(frozen=True, slots=True)
class Prior:
    """What is believed of the noise before any run.

    Attributes:
        sd: The standard deviation of one run.
        freedom: How many degrees of freedom that belief is worth; 0 where there is none.
    """

    sd: float = 0.0
    freedom: float = 0.0

    @property
    def baseline_runs(self) -> int:
        """How often the baseline is run, so that the noise is known well enough."""
        return 3 if self.freedom else 5


NO_PRIOR = Prior()
VAL_BPB_ON_A_GPU = Prior(sd=0.0005, freedom=4)


def prior_of(metric_name: str, on_a_gpu: bool) -> Prior:
    """What is believed of a metric; nothing but of val_bpb after minutes on a GPU, of which real nights are known."""
    return VAL_BPB_ON_A_GPU if metric_name == "val_bpb" and on_a_gpu else NO_PRIOR


@dataclass(frozen=True, slots=True)
class Noise:
    """What is known of the noise now.

    Attributes:
        freedom: Degrees of freedom of the replicates.
        spread: The root of their sum of squares.
        prior: What was believed before.
        exact: Whether the metric is deterministic, so that one run says all.
    """

    freedom: int = 0
    spread: float = 0.0
    prior: Prior = NO_PRIOR
    exact: bool = False

    @property
    def degrees(self) -> float:
        """The degrees of freedom of `sd`."""
        return self.freedom + self.prior.freedom

    @property
    def sd(self) -> float:
        """The standard deviation of one run: `s^2 = (SS + v0 s0^2) / (df + v0)`; infinite while nothing is known."""
        if not self.degrees:
            return math.inf
        believed = self.prior.sd * math.sqrt(self.prior.freedom)
        return math.hypot(self.spread, believed) / math.sqrt(self.degrees)

    def plus(self, before: Sample, after: Sample) -> Noise:
        """The noise when one of the samples it was pooled from has grown."""
        ratio = before.spread / after.spread if after.spread else 0.0
        grown = after.spread * math.sqrt(max(0.0, 1 - ratio * ratio)) if math.isfinite(after.spread) else after.spread
        freedom = self.freedom + max(after.runs - 1, 0) - max(before.runs - 1, 0)
        return Noise(freedom, math.hypot(self.spread, grown), self.prior, self.exact and grown == 0)


def pooled(samples: Iterable[Sample], prior: Prior = NO_PRIOR, seeds_passed: bool = True) -> Noise:
    """What samples of several commits say together.

    Args:
        samples: One for each commit that was run more than once; the baseline's is among them.
        seeds_passed: Whether training was really given different seeds: runs that are equal because nothing differed
            show no determinism.
    """
    taken = [sample for sample in samples if sample.runs > 1]
    noise = Noise(sum(sample.runs - 1 for sample in taken), math.hypot(*(sample.spread for sample in taken)), prior)
    size = max((abs(sample.mean) for sample in taken), default=0.0)
    measured = noise.spread / math.sqrt(noise.freedom) if noise.freedom else math.inf
    exact = seeds_passed and noise.freedom >= prior.baseline_runs - 1 and measured <= EXACT * size
    return Noise(noise.freedom, noise.spread, prior, exact)
