"""Checks that the results of a comparison can be put in a table."""

from collections.abc import Iterable, Mapping, Sequence

from polytask._errors import UserError
from polytask.compare._results import Result

Seeds = set[int]


def check_results(results: Sequence[Result]) -> None:
    """Check that each row has one value of every metric with every seed.

    Args:
        results: Every number of every run.

    Raises:
        UserError: If there are none, one is missing or given twice, or runs differ in their metrics, their
            directions, their seeds or their split.
    """
    if not results:
        raise _error("results are required", "none")
    if len(splits := sorted({one.split for one in results})) > 1:
        raise _error("all results must be of one split", " and ".join(splits))
    higher: dict[str, bool] = {}
    rows: dict[tuple[str, str], dict[str, Seeds]] = {}
    for one in results:
        metric = f"{one.task}/{one.metric}"
        if higher.setdefault(metric, one.higher_is_better) != one.higher_is_better:
            raise _error(
                "higher_is_better of a metric must not differ between runs",
                f"another value for {metric} in {one.run}",
            )
        seeds = rows.setdefault((one.method, one.architecture), {}).setdefault(metric, set())
        if one.seed in seeds:
            found = f"two values of {metric} with seed {one.seed} for {one.method}-{one.architecture}"
            raise _error("every row must have one value of a metric for a seed", found)
        seeds.add(one.seed)
    every = {one.seed for one in results}
    for row, given in rows.items():
        _check_row("-".join(row), given, higher, every)


def _check_row(name: str, given: Mapping[str, Seeds], metrics: Iterable[str], every: Seeds) -> None:
    if missing := [metric for metric in metrics if metric not in given]:
        raise _error("every row must have the same tasks and metrics", f"no {missing[0]} for {name}")
    own = set().union(*given.values())
    if own != every:
        raise _error("every row must have the same seeds", f"{sorted(own)} for {name} of {sorted(every)}")
    for metric, seeds in given.items():
        if absent := sorted(every - seeds):
            found = f"no {metric} with seed {absent[0]} for {name}"
            raise _error("every row must have every metric with every seed", found)


def _error(rule: str, found: str) -> UserError:
    return UserError("comparison", rule, found, "Run `polytask compare` again")
