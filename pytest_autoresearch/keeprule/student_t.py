"""Student's t distribution: cumulative distribution function and quantiles, in plain Python. Pure."""

from __future__ import annotations

import math
from functools import lru_cache
from statistics import NormalDist

_NORMAL = NormalDist()
_NEARLY_NORMAL = 1e7  # degrees of freedom above which the normal distribution is exact enough
_TERMS = 500
_SMALL = 1e-300
_ENOUGH = 1e-15


def cdf(t: float, freedom: float) -> float:
    """The probability that a variable with `freedom` degrees of freedom is below `t`.

    `1 - I_x(freedom / 2, 1 / 2) / 2` for positive t, where x is `freedom / (freedom + t^2)` and I the regularised
    incomplete beta function: Abramowitz and Stegun, 26.7.1.

    Raises:
        ValueError: `freedom` is not positive.
    """
    _check(freedom)
    if math.isnan(t):
        return math.nan
    if freedom > _NEARLY_NORMAL:
        return _NORMAL.cdf(t)
    if math.isinf(t):
        return 1.0 if t > 0 else 0.0
    ratio = t / math.sqrt(freedom)  # the square may overflow; the result does not
    squared = ratio * ratio if abs(ratio) < 1e150 else math.inf
    tail = incomplete_beta(freedom / 2, 0.5, 1 / (1 + squared), squared / (1 + squared) if squared < math.inf else 1.0)
    return 1 - tail / 2 if t > 0 else tail / 2


@lru_cache(maxsize=4096)  # a campaign computes the same few quantiles again and again
def quantile(p: float, freedom: float) -> float:
    """The inverse of `cdf`, by bisection.

    Raises:
        ValueError: `freedom` is not positive, or `p` is no probability.
    """
    _check(freedom)
    if not 0 <= p <= 1:
        raise ValueError(f"{p} is no probability")
    if p in (0, 1):
        return math.inf if p else -math.inf
    if freedom > _NEARLY_NORMAL:
        return _NORMAL.inv_cdf(p)
    if p < 0.5:
        return -quantile(1 - p, freedom)
    low, high = 0.0, 1.0
    while cdf(high, freedom) < p:
        if high > 1e300:
            return high
        low, high = high, 2 * high
    while low < (middle := (low + high) / 2) < high:
        low, high = (middle, high) if cdf(middle, freedom) < p else (low, middle)
    return low if p == 0.5 else high


def incomplete_beta(a: float, b: float, x: float, rest: float) -> float:
    """The regularised incomplete beta function `I_x(a, b)`, by its continued fraction: DLMF 8.17.22.

    Args:
        rest: `1 - x`, which the caller may know more precisely than the subtraction.
    """
    if x <= 0 or rest <= 0:
        return 0.0 if x <= 0 else 1.0
    if x > (a + 1) / (a + b + 2):  # the fraction converges fast only for smaller x
        return 1 - incomplete_beta(b, a, rest, x)
    scale = math.lgamma(a + b) - math.lgamma(a) - math.lgamma(b) + a * math.log(x) + b * math.log(rest)
    return math.exp(scale) / (a * _fraction(a, b, x))


def _fraction(a: float, b: float, x: float) -> float:
    """`1 + d1/(1 + d2/(1 + ...))`, by Lentz's method."""
    value, numerator, denominator = 1.0, 1.0, 0.0
    for term in range(1, _TERMS):
        m = term // 2
        if term % 2:
            d = -(a + m) * (a + b + m) * x / ((a + 2 * m) * (a + 2 * m + 1))
        else:
            d = m * (b - m) * x / ((a + 2 * m - 1) * (a + 2 * m))
        denominator = 1 / (1 + d * denominator or _SMALL)
        numerator = 1 + d / numerator or _SMALL
        value *= numerator * denominator
        if abs(numerator * denominator - 1) < _ENOUGH:
            break
    return value


def _check(freedom: float) -> None:
    if not freedom > 0:
        raise ValueError(f"Student's t has no distribution with {freedom} degrees of freedom")
