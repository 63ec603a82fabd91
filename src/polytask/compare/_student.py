"""Student's t: its probabilities and quantiles, and the power of its test."""

import math
from collections.abc import Callable
from functools import cache
from statistics import NormalDist


def t_within(t: float, degrees: int) -> float:
    r"""The probability that Student's t lies within :math:`\pm t`.

    Args:
        t: A bound, 0 or more.
        degrees: Degrees of freedom, 1 or more.

    Example:
        >>> round(t_within(4.303, 2), 3)
        0.95

    Reference:
        Abramowitz, Stegun. Handbook of Mathematical Functions. NBS 1964, 26.7.3 and 26.7.4.
    """
    angle = math.atan2(t, math.sqrt(degrees))
    sine, cosine = math.sin(angle), math.cos(angle)
    odd = degrees % 2
    term, total = (cosine, 0.0) if odd else (1.0, 0.0)
    for power in range(odd, degrees - 1, 2):
        total += term
        term *= cosine**2 * (power + 1) / (power + 2)
    return min(1.0, 2 / math.pi * (angle + sine * total) if odd else sine * total)


@cache
def t_quantile(within: float, degrees: int) -> float:
    """The bound within which Student's t lies with a given probability.

    Args:
        within: A probability, at least 0 and below 1.
        degrees: Degrees of freedom, 1 or more.

    Example:
        >>> round(t_quantile(0.95, 4), 4)
        2.7764
    """
    return _inverse(lambda t: t_within(t, degrees), within)


@cache
def t_shift(found: float, alpha: float, degrees: int) -> float:
    r"""How far from 0 a mean must be for its two-sided t test to find it, in standard errors.

    The test finds a shift :math:`\delta` with the noncentral t's probability

    .. math:: P(T > c) = \int_0^\infty \Phi(\delta - c s) f(s) \, ds,

    where :math:`c` is the test's bound and :math:`f` the density of :math:`s = \sqrt{\chi^2_\nu / \nu}`, the
    estimated standard error over the true one.

    Args:
        found: The power, which is the probability of finding it, above 0.5 and below 1.
        alpha: The probability of finding one that is not there, above 0 and at most 0.05.
        degrees: Degrees of freedom, 1 or more.

    Example:
        >>> [round(t_shift(0.8, 0.05 / tests, 4), 1) for tests in (1, 8, 32)]
        [3.8, 6.7, 9.5]

    Deviations:
        A shift that is found with the wrong sign does not count; its probability is below 0.0001.
    """
    bound, reach = t_quantile(1 - alpha, degrees), 8 / math.sqrt(degrees)
    low, high = max(0.0, 1 - reach), 1 + reach
    # The midpoint rule needs steps that are no wider than the normal's deviation, 1 / bound.
    count = 200 + math.ceil(bound * (high - low))
    points = [low + (high - low) * (index + 0.5) / count for index in range(count)]
    density = [s ** (degrees - 1) * math.exp(-degrees * (s * s - 1) / 2) for s in points]
    total, normal = sum(density), NormalDist()

    def power(shift: float) -> float:
        return sum(f * normal.cdf(shift - bound * s) for s, f in zip(points, density, strict=True)) / total

    return _inverse(power, found)


def _inverse(increasing: Callable[[float], float], value: float) -> float:
    """The positive number at which an increasing function reaches a value, by bisection."""
    low, high = 0.0, 1.0
    while increasing(high) < value:
        high *= 2
    while low < (middle := (low + high) / 2) < high:
        low, high = (middle, high) if increasing(middle) < value else (low, middle)
    return high
