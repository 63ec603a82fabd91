"""What a page is about, once it is read."""

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
        name: What the page calls it.
        runs: Its runs.
    """

    name: str
    runs: tuple[RunRecords, ...]


@dataclass(frozen=True)
class Baseline:
    """A task's single-task models: dashed lines beside the entries.

    Args:
        task: The task that they are trained on; they may measure others.
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
        higher_is_better: Which way is better.
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
    """All that one page is about.

    Args:
        name: The page's title.
        entries: Runs or methods that have begun; all of the same tasks.
        tasks: The tasks, in order.
        scores: Numbers of each run whose direction is known.
        split: The data that the scores are of.
        baselines: Single-task models whose runs are at hand.
        levels: Validation values of the other single-task models, by task and metric; means over seeds.
        table: The comparison's table; None for plain runs and where it is not finished.
        definition: The comparison's definition; empty for plain runs.
        note: What is to be known about all of it.
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
    """The last validation losses: of a run alone, what is known to be better when it is less.

    Args:
        name: The name of the runs' entry.
        runs: The runs.
        single: The task, where they are single-task models.
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
    """The tasks of the runs, which must be the same; a run without any record yet has none."""
    known = [(entry.name, run.tasks) for entry in entries for run in entry.runs if run.tasks]
    for name, tasks in known[1:]:
        if {*tasks} != {*known[0][1]}:
            raise UserError(
                "polytask report",
                "takes runs of the same tasks",
                f"{', '.join(known[0][1])} in {known[0][0]} and {', '.join(tasks)} in {name}",
                "Write a page for each",
            )
    return tuple(known[0][1]) if known else ()
