"""Means, intervals and paired tests over seeds; ranks and delta_m over tasks."""

import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from polytask._errors import UserError

LEVEL = 0.95
POWER = 0.8


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
    return 2 / math.pi * (angle + sine * total) if odd else sine * total


def t_quantile(within: float, degrees: int) -> float:
    """The bound that Student's t keeps within with a given probability.

    Args:
        within: A probability, at least 0 and below 1.
        degrees: Degrees of freedom, 1 or more.

    Example:
        >>> round(t_quantile(0.95, 4), 4)
        2.7764
    """
    low, high = 0.0, 1.0
    while t_within(high, degrees) < within:
        high *= 2
    for _ in range(100):
        middle = (low + high) / 2
        low, high = (middle, high) if t_within(middle, degrees) < within else (low, middle)
    return high


@dataclass(frozen=True)
class Interval:
    """A mean and how far its 95 % t interval reaches to either side.

    Attributes:
        mean: The mean.
        half: Half the interval's width; NaN for a single value, which has none.
        count: How many values it is the mean of.
    """

    mean: float
    half: float
    count: int

    @classmethod
    def of(cls, values: Sequence[float]) -> "Interval":
        """The interval of the mean of some values.

        Args:
            values: One for each seed.

        Example:
            >>> interval = Interval.of([1.0, 2.0, 3.0])
            >>> round(interval.mean, 3), round(interval.half, 3)
            (2.0, 2.484)
        """
        count = len(values)
        mean = statistics.fmean(values)
        if count < 2:
            return cls(mean, math.nan, count)
        error = statistics.stdev(values) / math.sqrt(count)
        return cls(mean, t_quantile(LEVEL, count - 1) * error, count)


@dataclass(frozen=True)
class Paired:
    """The difference of two methods on the same seeds.

    Attributes:
        difference: Its mean and 95 % t interval.
        p: The two-sided p value of the paired t test; NaN for one seed.
        detectable: The smallest difference that the test would have found in 4 of 5 such experiments, by
            :math:`(t_{0.975} + t_{0.8}) s / \\sqrt n`; NaN for one seed.
    """

    difference: Interval
    p: float
    detectable: float

    @classmethod
    def of(cls, values: Mapping[int, float], reference: Mapping[int, float]) -> "Paired":
        """Compare by seed.

        Args:
            values: By seed.
            reference: By seed.

        Raises:
            UserError: Where the seeds are not the same.

        Example:
            >>> paired = Paired.of({0: 2.0, 1: 3.0, 2: 5.0}, {0: 1.0, 1: 1.0, 2: 2.0})
            >>> round(paired.difference.mean, 3), round(paired.p, 4)
            (2.0, 0.0742)
        """
        if values.keys() != reference.keys():
            found = f"{sorted(values)} and {sorted(reference)}"
            raise UserError("seeds", "a paired test needs the same seeds on both sides", found)
        differences = [values[seed] - reference[seed] for seed in values]
        interval, degrees = Interval.of(differences), len(differences) - 1
        if not degrees:
            return cls(interval, math.nan, math.nan)
        error = statistics.stdev(differences) / math.sqrt(len(differences))
        detectable = (t_quantile(LEVEL, degrees) + t_quantile(2 * POWER - 1, degrees)) * error
        if error == 0:
            return cls(interval, 0.0 if interval.mean else 1.0, detectable)
        return cls(interval, 1 - t_within(abs(interval.mean) / error, degrees), detectable)


def holm(p_values: Sequence[float]) -> list[float]:
    """Holm's adjusted p values: below 0.05 where a test holds among all of them at 5 %.

    Args:
        p_values: One for each test.

    Example:
        >>> holm([0.01, 0.04, 0.03])
        [0.03, 0.06, 0.06]

    Reference:
        Holm. A simple sequentially rejective multiple test procedure. Scandinavian Journal of
        Statistics 1979.
    """
    order = sorted(range(len(p_values)), key=lambda index: p_values[index])
    adjusted, largest = [0.0] * len(p_values), 0.0
    for rank, index in enumerate(order):
        largest = max(largest, min(1.0, p_values[index] * (len(p_values) - rank)))
        adjusted[index] = largest
    return adjusted


def ranks(values: Sequence[float], higher_is_better: bool) -> list[float]:
    """Ranks from 1, the best; equal values share the mean of their ranks.

    Args:
        values: One for each method.
        higher_is_better: Whether the largest is the best.

    Example:
        >>> ranks([0.5, 0.9, 0.5], higher_is_better=True)
        [2.5, 1.0, 2.5]
    """
    signed = [-value if higher_is_better else value for value in values]
    return [
        sum(other < value for other in signed) + (sum(other == value for other in signed) + 1) / 2
        for value in signed
    ]


def delta(value: float, baseline: float, higher_is_better: bool, where: str) -> float:
    r"""The gain over a baseline in percent, :math:`100 s (M - B) / |B|`: positive is good.

    Args:
        value: The metric :math:`M`.
        baseline: The baseline's metric :math:`B`.
        higher_is_better: Whether :math:`s` is +1, else -1.
        where: The task and metric, for the message.

    Raises:
        UserError: Where the baseline is 0.

    Example:
        >>> delta(0.9, 0.75, True, "digit/Accuracy"), delta(1.5, 1.0, False, "height/Error")
        (20.0, -50.0)

    Deviations:
        The sign of a negative baseline is left out, so that a gain over it is positive too.
    """
    if baseline == 0:
        fix = "Compare by another metric"
        raise UserError(where, "delta_m is undefined where the baseline's metric is 0", "0", fix)
    return round(100 * (1 if higher_is_better else -1) * (value - baseline) / abs(baseline), 12)


def delta_by_task(
    values: Mapping[tuple[str, str], float],
    baselines: Mapping[tuple[str, str], float],
    higher_is_better: Mapping[tuple[str, str], bool],
) -> dict[str, float]:
    """Each task's gain in percent, the mean over its metrics; `delta_m` is the mean over tasks.

    Args:
        values: Metrics by task and metric.
        baselines: The same of the baselines.
        higher_is_better: The same keys again.

    Raises:
        UserError: Where a baseline is 0, or has other tasks or metrics.

    Example:
        >>> both = {("digit", "Accuracy"): True, ("height", "Error"): False}
        >>> by_task = delta_by_task(dict.fromkeys(both, 0.5), dict.fromkeys(both, 1.0), both)
        >>> by_task
        {'digit': -50.0, 'height': 50.0}
    """
    if values.keys() != baselines.keys():
        names = [", ".join("/".join(key) for key in given) for given in (values, baselines)]
        raise UserError("delta_m", "needs the baseline's metric for every task", f"{names[0]} and {names[1]}")
    terms: dict[str, list[float]] = {}
    for key, value in values.items():
        term = delta(value, baselines[key], higher_is_better[key], "/".join(key))
        terms.setdefault(key[0], []).append(term)
    return {task: statistics.fmean(own) for task, own in terms.items()}


def delta_m(by_task: Mapping[str, float]) -> float:
    r"""The mean gain over the baselines in percent, :math:`\frac{1}{T} \sum_i \Delta_i`: positive is good.

    Args:
        by_task: What `delta_by_task` gave.

    Example:
        >>> delta_m({"digit": -50.0, "height": 60.0})
        5.0

    Reference:
        Maninis, Radosavovic, Kokkinos. Attentive Single-Tasking of Multiple Tasks. CVPR 2019, equation 4.

    Deviations:
        Some papers print its negative; here positive is good.
    """
    return statistics.fmean(by_task.values())
