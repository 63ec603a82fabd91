"""The rows of a comparison's table: intervals, gains over single-task models, ranks, paired tests."""

import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from polytask.compare._check_results import check_results
from polytask.compare._names import SINGLE, SUM
from polytask.compare._results import Result
from polytask.compare._statistics import Interval, Paired, delta_by_task, delta_m, holm, ranks

TaskMetric = tuple[str, str]
RowKey = tuple[str, str]
BySeed = Mapping[int, float]


@dataclass(frozen=True)
class Gain:
    """The gain of a row over the single-task models of its architecture in percent; positive is better.

    The difference of a seed is to the single-task models of that seed, in percent of their mean over seeds.
    A method that is as good as they are gains 0 on average, however much they vary.

    Attributes:
        delta_m: The mean over tasks, and its interval over seeds.
        tasks: The same of each task.
    """

    delta_m: Interval
    tasks: Mapping[str, Interval]

    @property
    def worst(self) -> str:
        """The task with the smallest gain; NaN counts as smaller than all numbers."""
        means = {task: gain.mean for task, gain in self.tasks.items()}
        return min(means, key=lambda task: (not math.isnan(means[task]), means[task]))

    @property
    def below(self) -> list[str]:
        """The tasks that are worse than their single-task model, or NaN."""
        return [task for task, gain in self.tasks.items() if not gain.mean >= 0]

    @property
    def clearly_below(self) -> list[str]:
        """Those of `below` whose interval, not corrected for their number, is below 0, or that are NaN."""
        gains = {task: self.tasks[task] for task in self.below}
        return [task for task, gain in gains.items() if math.isnan(gain.mean) or gain.mean + gain.half < 0]


@dataclass(frozen=True)
class Difference:
    """One paired test against the plain sum.

    Attributes:
        paired: The difference, positive if the row is better.
        p: The p value among all tests of the table, by Holm; NaN if there is no test.
        detectable: The smallest difference that would have been found in 4 of 5 such comparisons, at Holm's
            smallest step among all tests of the table; NaN if there is no test.
    """

    paired: Paired
    p: float
    detectable: float


@dataclass(frozen=True)
class Row:
    """One method or baseline with one architecture.

    Attributes:
        method: Its name.
        architecture: The model's name.
        metrics: Mean and interval over seeds, by task and metric.
        seeds: How many seeds.
        gain: Over single-task models; None for these themselves, without them, or if undefined.
        rank: The mean rank over tasks among all rows, from 1.
        tests: Against the plain sum, by task and metric; empty for the plain sum itself.
        seconds: Mean wall time of a training; for ``single_task`` of all tasks together.
        peak_memory_mb: Peak memory of a training in MiB.
    """

    method: str
    architecture: str
    metrics: Mapping[TaskMetric, Interval]
    seeds: int
    gain: Gain | None
    rank: float
    tests: Mapping[TaskMetric, Difference]
    seconds: float
    peak_memory_mb: float


class Summary:
    """The rows of a comparison.

    Args:
        results: Every number of every run.

    Attributes:
        rows: The rows, in the order of the results.
        higher_is_better: By task and metric.
        split: The data that the numbers are computed on.
        undefined: Architectures that have single-task models but no delta_m, and why.
        unsteady: Mean and standard deviation of single-task models by architecture, task and metric, if they
            vary more over seeds than their mean differs from 0, so that a gain in percent says little.
        tests: How many tests there are.

    Raises:
        UserError: If there are no results, one is missing or given twice, or rows differ in metrics, seeds
            or split.

    Example:
        >>> def result(method, seed, value):
        ...     of = (method, "base", "method", seed, "a", "Accuracy")
        ...     return Result(*of, value, True, "test", 1.0, 9.0, "")
        >>> results = [result("plain_sum", seed, 0.5 + seed / 10) for seed in (0, 1)]
        >>> results += [result("uw", seed, 0.6 + seed / 10) for seed in (0, 1)]
        >>> rows = Summary(results).rows
        >>> [(row.method, round(row.metrics["a", "Accuracy"].mean, 3), row.rank) for row in rows]
        [('plain_sum', 0.55, 2.0), ('uw', 0.65, 1.0)]
    """

    def __init__(self, results: Sequence[Result]) -> None:
        check_results(results)
        self.higher_is_better = {(one.task, one.metric): one.higher_is_better for one in results}
        self.split = results[0].split
        self._seeds = sorted({one.seed for one in results})
        self._values: dict[RowKey, dict[TaskMetric, dict[int, float]]] = {}
        for one in results:
            row = self._values.setdefault((one.method, one.architecture), {})
            row.setdefault((one.task, one.metric), {})[one.seed] = one.value
        metrics = {
            row: {key: Interval.of(list(by_seed.values())) for key, by_seed in own.items()}
            for row, own in self._values.items()
        }
        singles = {row[1]: own for row, own in metrics.items() if row[0] == SINGLE}
        self.undefined = {model: why for model, own in singles.items() if (why := _why_undefined(own))}
        self.unsteady = {
            (model, key): found
            for model in singles
            for key, by_seed in self._values[SINGLE, model].items()
            if model not in self.undefined and (found := _unsteady(list(by_seed.values())))
        }
        mean_ranks, (tests, self.tests) = self._ranks(metrics), self._tests()
        self.rows = [
            Row(
                *row,
                metrics[row],
                len(self._seeds),
                self._gain(row, singles),
                mean_ranks[row],
                tests[row],
                *_cost([one for one in results if (one.method, one.architecture) == row]),
            )
            for row in self._values
        ]

    def _gain(self, row: RowKey, singles: Mapping[str, Mapping[TaskMetric, Interval]]) -> Gain | None:
        method, model = row
        if method == SINGLE or model not in singles or model in self.undefined:
            return None
        own, baseline = self._values[row], self._values[SINGLE, model]
        means = {key: interval.mean for key, interval in singles[model].items()}
        by_seed = [
            delta_by_task(
                {key: mean + own[key][seed] - baseline[key][seed] for key, mean in means.items()},
                means,
                self.higher_is_better,
            )
            for seed in self._seeds
        ]
        tasks = {task: Interval.of([one[task] for one in by_seed]) for task in by_seed[0]}
        return Gain(Interval.of([delta_m(one) for one in by_seed]), tasks)

    def _ranks(self, metrics: Mapping[RowKey, Mapping[TaskMetric, Interval]]) -> dict[RowKey, float]:
        found: dict[RowKey, dict[str, list[float]]] = {row: {} for row in metrics}
        for key, higher in self.higher_is_better.items():
            means = [own[key].mean for own in metrics.values()]
            for row, rank in zip(metrics, ranks(means, higher), strict=True):
                found[row].setdefault(key[0], []).append(rank)
        return {row: statistics.fmean(map(statistics.fmean, tasks.values())) for row, tasks in found.items()}

    def _tests(self) -> tuple[dict[RowKey, dict[TaskMetric, Difference]], int]:
        """The tests of each row, and how many there are in all."""
        paired = {
            (row, key): self._paired(values, self._values[SUM, row[1]][key], key)
            for row, metrics in self._values.items()
            if row[0] != SUM and (SUM, row[1]) in self._values
            for key, values in metrics.items()
        }
        adjusted = holm([one.p for one in paired.values()])
        tests = sum(not math.isnan(p) for p in adjusted)
        found: dict[RowKey, dict[TaskMetric, Difference]] = {row: {} for row in self._values}
        for ((row, key), one), p in zip(paired.items(), adjusted, strict=True):
            found[row][key] = Difference(one, p, one.detectable(tests))
        return found, tests

    def _paired(self, values: BySeed, reference: BySeed, key: TaskMetric) -> Paired:
        return Paired.of(values, reference) if self.higher_is_better[key] else Paired.of(reference, values)


def _why_undefined(baseline: Mapping[TaskMetric, Interval]) -> str | None:
    """Why gains in percent over single-task models are undefined; None if they are defined."""
    for key, interval in baseline.items():
        if interval.mean == 0 or math.isnan(interval.mean):
            found = f"{'0' if interval.mean == 0 else 'not a number'}, over which there is no gain in percent"
            return f"{'/'.join(key)} of the single-task models is {found}"
    return None


def _unsteady(values: Sequence[float]) -> tuple[float, float] | None:
    """Mean and standard deviation, if the mean is closer to 0 than one standard deviation."""
    if len(values) == 1:
        return None
    mean, deviation = statistics.fmean(values), statistics.stdev(values)
    return (mean, deviation) if abs(mean) < deviation else None


def _cost(results: Sequence[Result]) -> tuple[float, float]:
    """Mean seconds, summed over single-task models, and the peak memory."""
    runs = {one.run: (one.seed, one.seconds) for one in results}
    seeds = {seed for seed, _ in runs.values()}
    return sum(seconds for _, seconds in runs.values()) / len(seeds), max(
        one.peak_memory_mb for one in results
    )
