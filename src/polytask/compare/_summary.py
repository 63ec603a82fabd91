"""The rows of a comparison's table: intervals, gains over single-task models, ranks, paired tests."""

import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from polytask._errors import UserError
from polytask.compare._names import SINGLE, SUM
from polytask.compare._results import Result
from polytask.compare._statistics import Interval, Paired, delta_by_task, delta_m, holm, ranks

Key = tuple[str, str]
BySeed = Mapping[int, float]


@dataclass(frozen=True)
class Gain:
    """What a row gains over the single-task models of its architecture, in percent; positive is good.

    Attributes:
        delta_m: The mean over tasks, by seed against the mean of the single-task models over seeds.
        worst: The task that gains least.
        worst_delta: What it gains.
        below: How many tasks are worse than their single-task model.
    """

    delta_m: Interval
    worst: str
    worst_delta: float
    below: int


@dataclass(frozen=True)
class Difference:
    """One paired test against the plain sum.

    Attributes:
        paired: The difference, positive where the row is better.
        p: The p value among all tests of the table, by Holm.
    """

    paired: Paired
    p: float


@dataclass(frozen=True)
class Row:
    """One method, or baseline, with one architecture.

    Attributes:
        method: Its name.
        architecture: The model's name.
        metrics: Mean and interval over seeds, by task and metric.
        seeds: How many seeds.
        gain: Over single-task models; None for these themselves, without them, or where undefined.
        rank: The mean rank over tasks among all rows, from 1.
        tests: Against the plain sum, by task and metric; empty for the plain sum itself.
        seconds: Mean wall time of a training; for ``single_task`` of all tasks together.
        peak_memory_mb: Most memory of a training in MiB.
    """

    method: str
    architecture: str
    metrics: Mapping[Key, Interval]
    seeds: int
    gain: Gain | None
    rank: float
    tests: Mapping[Key, Difference]
    seconds: float
    peak_memory_mb: float


class Summary:
    """The rows of a comparison.

    Args:
        results: Every number of every run.

    Attributes:
        rows: The rows, in the order of the results.
        higher_is_better: By task and metric.
        undefined: Why there is no delta_m, where that is so.

    Raises:
        UserError: Where there are no results, or rows have other tasks or seeds.

    Example:
        >>> def result(method, seed, value):
        ...     of = (method, "base", "method", seed, "a", "Accuracy")
        ...     return Result(*of, value, True, "test", 1.0, 9.0, "")
        >>> results = [result("tuned_sum", seed, 0.5 + seed / 10) for seed in (0, 1)]
        >>> results += [result("uw", seed, 0.6 + seed / 10) for seed in (0, 1)]
        >>> rows = Summary(results).rows
        >>> [(row.method, round(row.metrics["a", "Accuracy"].mean, 3), row.rank) for row in rows]
        [('tuned_sum', 0.55, 2.0), ('uw', 0.65, 1.0)]
    """

    def __init__(self, results: Sequence[Result]) -> None:
        if not results:
            raise UserError("comparison", "needs results", "none")
        self.higher_is_better = {(one.task, one.metric): one.higher_is_better for one in results}
        self.split = results[0].split
        self._values: dict[tuple[str, str], dict[Key, dict[int, float]]] = {}
        for one in results:
            row = self._values.setdefault((one.method, one.architecture), {})
            row.setdefault((one.task, one.metric), {})[one.seed] = one.value
        self._check()
        self.undefined: str | None = None
        gains = {row: self._gain(row) for row in self._values}
        mean_ranks, tests = self._ranks(), self._tests()
        self.rows = [
            Row(
                *row,
                {key: Interval.of(list(by_seed.values())) for key, by_seed in metrics.items()},
                len(next(iter(metrics.values()))),
                gains[row],
                mean_ranks[row],
                tests[row],
                *_cost([one for one in results if (one.method, one.architecture) == row]),
            )
            for row, metrics in self._values.items()
        ]

    def _check(self) -> None:
        keys = self.higher_is_better.keys()
        for (method, architecture), metrics in self._values.items():
            if missing := [key for key in keys if key not in metrics]:
                found = f"no {'/'.join(missing[0])} for {method}-{architecture}"
                raise UserError("comparison", "every row has the same tasks and metrics", found)

    def _gain(self, row: tuple[str, str]) -> Gain | None:
        baseline = self._values.get((SINGLE, row[1]))
        if baseline is None or row[0] == SINGLE:
            return None
        means = {key: statistics.fmean(by_seed.values()) for key, by_seed in baseline.items()}
        metrics = self._values[row]
        seeds = next(iter(metrics.values()))
        try:
            by_seed = [
                self._deltas({key: values[seed] for key, values in metrics.items()}, means) for seed in seeds
            ]
        except UserError as error:
            self.undefined = str(error)
            return None
        tasks = {task: statistics.fmean(one[task] for one in by_seed) for task in by_seed[0]}
        worst = min(tasks, key=lambda task: tasks[task])
        below = sum(gain < 0 for gain in tasks.values())
        return Gain(Interval.of([delta_m(one) for one in by_seed]), worst, tasks[worst], below)

    def _deltas(self, values: Mapping[Key, float], baselines: Mapping[Key, float]) -> dict[str, float]:
        return delta_by_task(values, baselines, self.higher_is_better)

    def _ranks(self) -> dict[tuple[str, str], float]:
        found: dict[tuple[str, str], dict[str, list[float]]] = {row: {} for row in self._values}
        for key, higher in self.higher_is_better.items():
            means = [statistics.fmean(metrics[key].values()) for metrics in self._values.values()]
            for row, rank in zip(self._values, ranks(means, higher), strict=True):
                found[row].setdefault(key[0], []).append(rank)
        return {row: statistics.fmean(map(statistics.fmean, tasks.values())) for row, tasks in found.items()}

    def _tests(self) -> dict[tuple[str, str], dict[Key, Difference]]:
        paired = {
            (row, key): self._paired(values, self._values[SUM, row[1]][key], key)
            for row, metrics in self._values.items()
            if row[0] != SUM and (SUM, row[1]) in self._values
            for key, values in metrics.items()
        }
        known = {place: one for place, one in paired.items() if not math.isnan(one.p)}
        adjusted = dict(zip(known, holm([one.p for one in known.values()]), strict=True))
        found: dict[tuple[str, str], dict[Key, Difference]] = {row: {} for row in self._values}
        for (row, key), one in paired.items():
            found[row][key] = Difference(one, adjusted.get((row, key), math.nan))
        return found

    def _paired(self, values: BySeed, reference: BySeed, key: Key) -> Paired:
        return Paired.of(values, reference) if self.higher_is_better[key] else Paired.of(reference, values)


def _cost(results: Sequence[Result]) -> tuple[float, float]:
    """Mean seconds, those of all tasks' own models added up; the most memory."""
    runs = {one.run: (one.seed, one.seconds) for one in results}
    seeds = {seed for seed, _ in runs.values()}
    return sum(seconds for _, seconds in runs.values()) / len(seeds), max(
        one.peak_memory_mb for one in results
    )
