"""Means, intervals and paired tests over seeds; ranks and delta_m over tasks."""

import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from polytask._errors import UserError
from polytask.compare._student import t_quantile, t_shift, t_within

LEVEL = 0.95
POWER = 0.8
# Twice the error of the difference of two numbers in float32, in which metrics are computed.
_LEAST_P = 1e-15
_ROUNDING = 2**-22


@dataclass(frozen=True)
class Interval:
    """A mean and how far its 95 % t interval reaches to either side.

    Attributes:
        mean: The mean; NaN if a value is not finite.
        half: Half the interval's width; NaN also for a single value, which has none.
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

        Raises:
            UserError: If there are no values.

        Example:
            >>> interval = Interval.of([1.0, 2.0, 3.0])
            >>> round(interval.mean, 3), round(interval.half, 3)
            (2.0, 2.484)
        """
        count = len(values)
        if not count:
            raise UserError("values", "must have at least one value", "none")
        if not all(map(math.isfinite, values)):
            return cls(math.nan, math.nan, count)
        mean = statistics.fmean(values)
        if count < 2:
            return cls(mean, math.nan, count)
        error = statistics.stdev(values) / math.sqrt(count)
        return cls(mean, t_quantile(LEVEL, count - 1) * error, count)


@dataclass(frozen=True)
class Paired:
    """The difference of two methods on the same seeds.

    Attributes:
        difference: Its mean and 95 % t interval, which has no width if the difference is the same with every
            seed up to rounding to float32.
        p: The two-sided p value of the paired t test. NaN if there is no test: for one seed, for values
            that are not finite, and for a difference that is the same with every seed.
    """

    difference: Interval
    p: float

    @classmethod
    def of(cls, values: Mapping[int, float], reference: Mapping[int, float]) -> "Paired":
        """Compare by seed.

        Args:
            values: By seed.
            reference: By seed.

        Raises:
            UserError: If the seeds differ, or there are none.

        Example:
            >>> paired = Paired.of({0: 2.0, 1: 3.0, 2: 5.0}, {0: 1.0, 1: 1.0, 2: 2.0})
            >>> round(paired.difference.mean, 3), round(paired.p, 4)
            (2.0, 0.0742)
        """
        if values.keys() != reference.keys():
            found = f"{sorted(values)} and {sorted(reference)}"
            raise UserError("seeds", "must be the same on both sides of a paired test", found)
        differences = [values[seed] - reference[seed] for seed in values]
        interval = Interval.of(differences)
        if math.isnan(interval.half):
            return cls(interval, math.nan)
        scale = max(map(abs, [*values.values(), *reference.values()]))
        if max(differences) - min(differences) <= _ROUNDING * scale:
            return cls(Interval(interval.mean, 0.0, interval.count), math.nan)
        degrees = interval.count - 1
        t = abs(interval.mean) / interval.half * t_quantile(LEVEL, degrees)
        # The integral is no more exact than that.
        return cls(interval, max(1 - t_within(t, degrees), _LEAST_P))

    @property
    def is_constant(self) -> bool:
        """Whether the difference is the same with every seed, so that nothing can be tested."""
        return self.difference.half == 0

    def detectable(self, tests: int = 1) -> float:
        r"""The smallest difference that would have been found in 4 of 5 such experiments.

        The power of the t test is 0.8 there, by the noncentral t; NaN if there is no test.

        Args:
            tests: How many tests it is one of: the bound is that of Holm's smallest step, 0.05 / tests.

        Example:
            >>> paired = Paired.of({0: 2.0, 1: 3.0, 2: 5.0}, {0: 1.0, 1: 1.0, 2: 2.0})
            >>> round(paired.detectable(), 2), round(paired.detectable(tests=4), 2)
            (3.26, 6.55)
        """
        if math.isnan(self.p):
            return math.nan
        degrees = self.difference.count - 1
        error = self.difference.half / t_quantile(LEVEL, degrees)
        return t_shift(POWER, (1 - LEVEL) / tests, degrees) * error


def holm(p_values: Sequence[float]) -> list[float]:
    """Holm's adjusted p values: below 0.05 if a test is significant at 5 % among all of them.

    Args:
        p_values: One for each test; NaN if there was none, which stays NaN and does not count.

    Example:
        >>> holm([0.01, 0.04, 0.03, float("nan")])
        [0.03, 0.06, 0.06, nan]

    Reference:
        Holm. A simple sequentially rejective multiple test procedure. Scandinavian Journal of
        Statistics 1979.
    """
    tests = [index for index, p in enumerate(p_values) if not math.isnan(p)]
    adjusted, largest = [math.nan] * len(p_values), 0.0
    for rank, index in enumerate(sorted(tests, key=lambda index: p_values[index])):
        largest = max(largest, min(1.0, p_values[index] * (len(tests) - rank)))
        adjusted[index] = largest
    return adjusted


def ranks(values: Sequence[float], higher_is_better: bool) -> list[float]:
    """Ranks from 1, the best; equal values share the mean of their ranks, and NaN is last.

    Args:
        values: One for each method.
        higher_is_better: Whether the largest is the best.

    Example:
        >>> ranks([0.5, 0.9, 0.5], higher_is_better=True)
        [2.5, 1.0, 2.5]
    """
    signed = [(True, 0.0) if math.isnan(v) else (False, -v if higher_is_better else v) for v in values]
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
        UserError: If the baseline is 0.

    Example:
        >>> delta(0.75, 0.5, True, "digit/Accuracy"), delta(1.5, 1.0, False, "height/Error")
        (50.0, -50.0)

    Deviations:
        The sign of a negative baseline is left out, so that a gain over it is positive too.
    """
    if baseline == 0:
        fix = "Compare by another metric"
        raise UserError(where, "the baseline's metric must not be 0 for delta_m", "0", fix)
    return 100 * (1 if higher_is_better else -1) * (value - baseline) / abs(baseline)


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
        UserError: If a baseline is 0, or has other tasks or metrics.

    Example:
        >>> both = {("digit", "Accuracy"): True, ("height", "Error"): False}
        >>> by_task = delta_by_task(dict.fromkeys(both, 0.5), dict.fromkeys(both, 1.0), both)
        >>> by_task
        {'digit': -50.0, 'height': 50.0}
    """
    if values.keys() != baselines.keys():
        names = [", ".join("/".join(key) for key in given) for given in (values, baselines)]
        raise UserError("delta_m", "baselines must have the same metrics", f"{names[0]} and {names[1]}")
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
