"""Student's t distribution: its distribution function and its quantiles, in plain Python.

Pure. Knows nothing of metrics or verdicts.
"""

from __future__ import annotations

import math
from functools import lru_cache
from statistics import NormalDist

_NORMAL = NormalDist()
_NEARLY_NORMAL = 1e7  # degrees of freedom beyond which nothing is left to tell the two apart
_TERMS = 500
_SMALL = 1e-300
_ENOUGH = 1e-15


def cdf(t: float, freedom: float) -> float:
    """The probability that a variable with so many degrees of freedom is below `t`.

    `1 - I_x(freedom / 2, 1 / 2) / 2` for positive t, where x is `freedom / (freedom + t^2)` and I the regularised
    incomplete beta function: Abramowitz and Stegun, 26.7.1.

    Raises:
        ValueError: There are no degrees of freedom.
    """
    _check(freedom)
    if math.isnan(t):
        return math.nan
    if freedom > _NEARLY_NORMAL:
        return _NORMAL.cdf(t)
    if math.isinf(t):
        return 1.0 if t > 0 else 0.0
    ratio = t / math.sqrt(freedom)  # its square may be too large for a number; what is made of it is not
    squared = ratio * ratio if abs(ratio) < 1e150 else math.inf
    tail = incomplete_beta(freedom / 2, 0.5, 1 / (1 + squared), squared / (1 + squared) if squared < math.inf else 1.0)
    return 1 - tail / 2 if t > 0 else tail / 2


@lru_cache(maxsize=4096)  # a campaign asks for a few thresholds at a few degrees of freedom, again and again
def quantile(p: float, freedom: float) -> float:
    """The value that such a variable stays below with probability `p`: the inverse of `cdf`, by bisection.

    Raises:
        ValueError: There are no degrees of freedom, or `p` is no probability.
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
        rest: `1 - x`, which a caller may know better than a subtraction would.
    """
    if x <= 0 or rest <= 0:
        return 0.0 if x <= 0 else 1.0
    if x > (a + 1) / (a + b + 2):  # the fraction converges fast on the other side alone
        return 1 - incomplete_beta(b, a, rest, x)
    scale = math.lgamma(a + b) - math.lgamma(a) - math.lgamma(b) + a * math.log(x) + b * math.log(rest)
    return math.exp(scale) / (a * _fraction(a, b, x))


def _fraction(a: float, b: float, x: float) -> float:
    """`1 + d1/(1 + d2/(1 + ...))`, evaluated from the front by Lentz's method."""
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
