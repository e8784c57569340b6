"""The noise: how much the metric varies between runs of one program, estimated from runs and a prior.

Pure: numbers in, numbers out. Knows nothing of verdicts.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from functools import reduce

EXACT = 1e-7  # relative difference between seeds below which a metric counts as deterministic
DETERMINISTIC = "deterministic, or AUTORESEARCH_SEED is not read"


@dataclass(frozen=True, slots=True)
class Sample:
    """Runs of one commit on different seeds. Runs that were selected by their metric must not be included.

    Attributes:
        runs: The number of runs.
        mean: The mean metric; 0 without runs.
        spread: The root of the sum of squared differences from the mean; the root, because the sum may overflow.
    """

    runs: int = 0
    mean: float = 0.0
    spread: float = 0.0

    @classmethod
    def of(cls, metrics: Iterable[float]) -> Sample:
        """The sample of these metrics."""
        return reduce(cls.plus, metrics, cls())

    def plus(self, metric: float) -> Sample:
        """The sample with one more run."""
        runs = self.runs + 1
        if runs == 1:
            return Sample(1, float(metric))
        away = metric - self.mean
        if math.isinf(away) and math.isfinite(metric):  # the difference overflows
            return Sample(runs, self.mean * (self.runs / runs) + metric / runs, math.inf)
        return Sample(runs, self.mean + away / runs, math.hypot(self.spread, away * math.sqrt(self.runs / runs)))


@dataclass(frozen=True, slots=True)
class Prior:
    """The assumed noise before any run.

    Attributes:
        sd: The standard deviation of one run.
        freedom: The weight of the prior in degrees of freedom; 0 without a prior.
    """

    sd: float = 0.0
    freedom: float = 0.0

    @property
    def baseline_runs(self) -> int:
        """The number of baseline runs, enough to estimate the noise."""
        return 3 if self.freedom else 5


NO_PRIOR = Prior()
# Between about 0.0004, in a public night on an H100, and 0.0014, in our own runs of 300 s on an H200 with one degree of
# freedom (benchmarks/components-h200.json); so it has little weight.
VAL_BPB_ON_A_GPU = Prior(sd=0.0007, freedom=2)


def prior_of(metric_name: str, on_a_gpu: bool) -> Prior:
    """The prior of a metric. Only val_bpb on a GPU has one, from measurements of real nights."""
    return VAL_BPB_ON_A_GPU if metric_name == "val_bpb" and on_a_gpu else NO_PRIOR


@dataclass(frozen=True, slots=True)
class Noise:
    """The current estimate of the noise.

    Attributes:
        freedom: Degrees of freedom of the replicates.
        spread: The root of the replicates' sum of squares.
        prior: The prior.
        exact: Whether the metric is deterministic, so that one run is enough.
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
        """The standard deviation of one run: `s^2 = (SS + v0 s0^2) / (df + v0)`; infinite while unknown."""
        if not self.degrees:
            return math.inf
        believed = self.prior.sd * math.sqrt(self.prior.freedom)
        return math.hypot(self.spread, believed) / math.sqrt(self.degrees)


def pooled(samples: Iterable[Sample], prior: Prior = NO_PRIOR, least: int | None = None) -> Noise:
    """The noise, pooled over samples of several commits.

    Args:
        samples: One for each commit with more than one run, including the baseline.
        least: The number of equal runs of one commit that show a deterministic metric; by default, the baseline's.
    """
    taken = [sample for sample in samples if sample.runs > 1]
    noise = Noise(sum(sample.runs - 1 for sample in taken), math.hypot(*(sample.spread for sample in taken)), prior)
    size = max((abs(sample.mean) for sample in taken), default=0.0)
    measured = noise.spread / math.sqrt(noise.freedom) if noise.freedom else math.inf
    exact = noise.freedom >= (least or prior.baseline_runs) - 1 and measured <= EXACT * size
    return Noise(noise.freedom, noise.spread, prior, exact)
