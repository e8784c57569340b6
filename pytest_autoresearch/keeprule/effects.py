"""What is believed of the effects of proposals that were estimated with noise: an empirical Bayes estimate.

A campaign's own estimates say how many of its proposals do nothing and how large the effects of the others are. The
estimate of one proposal is read in that light, so that the best of many is not taken for what luck made of it.

Pure: numbers in, numbers out. Gains are positive where the metric is better, whatever its direction.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

from pytest_autoresearch.keeprule import student_t

KEPT_AT = 0.25  # the probability of a gain above which a proposal joins the combination; most of the rest is "nothing"
_FAR = 8.0  # standard errors; an effect farther off is ruin or triumph, and says little of the others' sizes
_LEAST = 2.0  # standard errors; the least standard deviation of effects that are not nothing
_HALVINGS = 50
_ROUNDS = 20  # of the expectation-maximisation
_PSEUDO = 2.0  # pseudo-proposals without an effect, and as many whose effects are as large as the noise


@dataclass(frozen=True, slots=True)
class Effect:
    """The estimated effect of a proposal.

    Attributes:
        gain: In the metric's unit.
        error: Its standard error; infinite if the runs say nothing of it.
        degrees: The degrees of freedom of `error`.
    """

    gain: float
    error: float
    degrees: float


@dataclass(frozen=True, slots=True)
class Believed:
    """What is believed of an effect that is one of many.

    Attributes:
        gain: Its expected size, which is nearer to zero than the estimate.
        p: The probability that it is a gain.
    """

    gain: float
    p: float


@dataclass(frozen=True, slots=True)
class Belief:
    """How a campaign's effects are distributed: some are nothing, the others normal around zero.

    Attributes:
        nothing: The share of proposals without any effect.
        sd: The standard deviation of the others' effects.
        noise: How large the errors of the estimates are, as a multiple of what replicates say. Proposals that do
            nothing show it as well (R. V. Lenth, Technometrics 31, 1989, 469-473).
        degrees: The degrees of freedom of `noise`.
    """

    nothing: float
    sd: float
    noise: float = 1.0
    degrees: float = 0.0

    @classmethod
    def of(cls, effects: Iterable[Effect]) -> Belief:
        """The maximum of the likelihood of these estimates and of some pseudo-proposals, by expectation-maximisation.

        Without estimates, half of the proposals are believed to do nothing, and the others as much as the noise.
        """
        known = [one for one in effects if 0 < one.error < math.inf]
        if not known:
            return cls(0.5, 0.0)
        replicated = max(one.degrees for one in known)
        common = math.fsum(one.error for one in known) / len(known)
        far = [max(-_FAR, min(one.gain / one.error, _FAR)) for one in known]
        square = math.fsum((z * one.error / common) ** 2 for z, one in zip(far, known, strict=True)) / len(known)
        belief = cls(0.5, common * math.sqrt(max(square - 1, 0.1)))
        for _ in range(_ROUNDS):
            real = squares = small = 0.0
            for z, one in zip(far, known, strict=True):
                some, shrunk, left = belief._apart(z, one.error)
                real += some
                squares += some * ((shrunk / common) ** 2 + (left / common) ** 2)
                small += (1 - some) * z * z
            none = len(known) - real
            belief = cls(
                (none + _PSEUDO) / (len(known) + 2 * _PSEUDO),
                common * max(math.sqrt((squares + _PSEUDO * _LEAST**2) / (real + _PSEUDO)), _LEAST * belief.noise),
                math.sqrt((small + replicated) / (none + replicated)) if replicated else 1.0,
                none + replicated,
            )
        return belief

    def of_effect(self, effect: Effect) -> Believed:
        """What is believed of one effect with this estimate."""
        if not effect.error < math.inf:
            return Believed(0.0, (1 - self.nothing) / 2)
        if effect.error == 0:
            return Believed(effect.gain, float(effect.gain > 0))
        real, shrunk, left = replace(self, sd=self.sd or effect.error)._apart(effect.gain / effect.error, effect.error)
        degrees = max(self.degrees or effect.degrees, 1.0)
        return Believed(
            real * shrunk, real * student_t.cdf(shrunk / left if left else math.copysign(math.inf, shrunk), degrees)
        )

    def _apart(self, z: float, error: float) -> tuple[float, float, float]:
        """The probability that an estimate is of an effect that is not nothing; if so, its mean and its standard
        deviation. The estimate is `z` standard errors, by the replicates."""
        z = max(-1e100, min(z / self.noise, 1e100))
        error *= self.noise
        ratio = min(self.sd / error, 1e100) if error else 1e100
        share = ratio * ratio / (1 + ratio * ratio)
        # The logarithm of the ratio of the two densities, since both may be too small for a float.
        odds = math.log((1 - self.nothing) / self.nothing) + z * z * share / 2 - math.log1p(ratio * ratio) / 2
        real = 1 / (1 + math.exp(-odds)) if odds > -700 else 0.0
        return real, share * z * error, math.sqrt(share) * error


def needed(effect: Effect, belief: Belief) -> float:
    """The estimated gain above which a proposal with this error joins the combination; infinite if none would do."""
    if not effect.error < math.inf:
        return math.inf
    if effect.error == 0:
        return 0.0
    low, high = 0.0, effect.error
    while belief.of_effect(replace(effect, gain=high)).p < KEPT_AT:
        low, high = high, 2 * high
        if not high < math.inf:
            return math.inf
    for _ in range(_HALVINGS):
        middle = (low + high) / 2
        low, high = (low, middle) if belief.of_effect(replace(effect, gain=middle)).p >= KEPT_AT else (middle, high)
    return low


def chosen(effects: Sequence[Effect], belief: Belief) -> tuple[int, ...]:
    """The proposals that the combination has, best first."""
    beliefs = [belief.of_effect(effect) for effect in effects]
    taken = [at for at, one in enumerate(beliefs) if one.p >= KEPT_AT and one.gain > 0]
    return tuple(sorted(taken, key=lambda at: -beliefs[at].gain))
