"""The data of one page."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from polytask._errors import UserError
from polytask.report._charts import Grid
from polytask.report._records import RunRecords

SINGLE_TASK = "single-task"


@dataclass(frozen=True)
class Entry:
    """A line of the charts: one run, or one method's runs over seeds.

    Args:
        name: Its name on the page.
        runs: Its runs.
    """

    name: str
    runs: tuple[RunRecords, ...]


@dataclass(frozen=True)
class Baseline:
    """A task's single-task models, drawn as dashed lines.

    Args:
        task: The task that they are trained on; their metrics may be of others too.
        entry: Their runs, over seeds.
    """

    task: str
    entry: Entry


@dataclass(frozen=True)
class Score:
    """One number of a run.

    Args:
        entry: The name of the run's entry.
        run: The run.
        task: The task.
        metric: The metric's name.
        value: Its value.
        higher_is_better: Whether a higher value is better.
        is_baseline: Whether the run is a single-task model.
    """

    entry: str
    run: str
    task: str
    metric: str
    value: float
    higher_is_better: bool
    is_baseline: bool = False


@dataclass(frozen=True)
class Collection:
    """The data of one page.

    Args:
        name: The page's title.
        entries: Runs or methods that have started; all have the same tasks.
        tasks: The tasks, in order.
        scores: Values of each run, of losses and of metrics with a known better direction.
        split: The data that the scores are computed on.
        baselines: Single-task models whose run folders exist.
        levels: Mean validation values of the other single-task models, by task and metric.
        table: The comparison's table; None for runs and for an unfinished comparison.
        definition: The comparison's definition; empty for runs.
        note: A remark on all of it.

    Example:
        >>> collection = Collection("digits", entries=(), tasks=("digit", "parity"))
        >>> collection.split, collection.table is None
        ('val', True)
    """

    name: str
    entries: tuple[Entry, ...]
    tasks: tuple[str, ...]
    scores: tuple[Score, ...] = ()
    split: str = "val"
    baselines: tuple[Baseline, ...] = ()
    levels: Mapping[tuple[str, str], float] = field(default_factory=dict)
    table: Grid | None = None
    definition: Mapping[str, Any] = field(default_factory=dict)
    note: str = ""


def last_losses(name: str, runs: Iterable[RunRecords], single: str | None = None) -> list[Score]:
    """The last validation losses, the only values of a run that are known to be better if lower.

    Args:
        name: The name of the runs' entry.
        runs: The runs.
        single: The task if they are single-task models.
    """
    return [
        Score(name, str(run.folder), task, "loss", value, False, single is not None)
        for run in runs
        for task, value in _validation_losses(run).items()
        if single in (None, task)
    ]


def _validation_losses(run: RunRecords) -> dict[str, float]:
    keys = {f"val/loss/{task}": task for task in run.tasks}
    return {task: run.last[key] for key, task in keys.items() if key in run.last}


def common_tasks(entries: Sequence[Entry]) -> tuple[str, ...]:
    """The tasks of the runs, which must be the same for all; a run without records has none yet."""
    known = [(entry.name, run.tasks) for entry in entries for run in entry.runs if run.tasks]
    for name, tasks in known[1:]:
        if {*tasks} != {*known[0][1]}:
            raise UserError(
                "polytask report",
                "must be given runs of the same tasks",
                f"{', '.join(known[0][1])} in {known[0][0]} and {', '.join(tasks)} in {name}",
                "Write a page for each",
            )
    return tuple(known[0][1]) if known else ()
