"""What the page compares: single runs, or the methods of a comparison with their seeds."""

import csv
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from polytask._errors import UserError
from polytask.report._records import RunRecords, Table, read_run, read_table, read_yaml

COMPARISON = "comparison.yaml"
_RESULTS = (
    "method",
    "architecture",
    "kind",
    "seed",
    "task",
    "metric",
    "value",
    "higher_is_better",
    "split",
    "run",
)


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
class Score:
    """One number of a run: the run's name, task, metric, value, direction and split."""

    entry: str
    run: str
    task: str
    metric: str
    value: float
    higher_is_better: bool
    split: str
    is_baseline: bool


@dataclass(frozen=True)
class Collection:
    """All that one page is about.

    Args:
        name: The page's title.
        entries: Runs or methods; all of the same tasks.
        tasks: The tasks, in order.
        scores: Results of a comparison; empty for plain runs.
        table: The comparison's table, a header and rows; empty for plain runs.
        definition: The comparison's definition; empty for plain runs.
    """

    name: str
    entries: tuple[Entry, ...]
    tasks: tuple[str, ...]
    scores: tuple[Score, ...] = ()
    table: tuple[tuple[str, ...], ...] = ()
    definition: Mapping[str, Any] = field(default_factory=dict)


def collect(paths: Sequence[Path], single_task: Sequence[Path] = ()) -> Collection:
    """Runs, or one comparison.

    Args:
        paths: Folders of runs, or one comparison's folder.
        single_task: Runs of single tasks, for the baselines of plain runs.

    Raises:
        UserError: Where a path is neither, runs and a comparison are mixed, or runs have different tasks.
    """
    comparisons = [path for path in paths if (path / COMPARISON).is_file()]
    if not paths:
        raise UserError("polytask report", "needs the folder of a run or of a comparison", "none")
    if comparisons and len(paths) > 1:
        found = f"{comparisons[0]} among {len(paths)} folders"
        raise UserError("polytask report", "takes one comparison alone, or runs", found, "Name it alone")
    if comparisons and single_task:
        raise UserError("--single-task", "is for plain runs; a comparison has its own", single_task[0])
    return _comparison(comparisons[0]) if comparisons else _runs(paths, single_task)


def _runs(paths: Sequence[Path], single_task: Sequence[Path]) -> Collection:
    names = _short_names(paths)
    doubled = next((path for path, name in zip(paths, names, strict=True) if names.count(name) > 1), None)
    if doubled is not None:
        raise UserError("polytask report", "takes a run once", f"{doubled} twice")
    entries = tuple(Entry(name, (read_run(path),)) for name, path in zip(names, paths, strict=True))
    title = names[0] if len(names) == 1 else f"{len(names)} runs"
    tasks = _common_tasks(entries)
    scores = [score for entry in entries for score in _last_losses(entry)]
    scores += [score for path in single_task for score in _baselines(read_run(path), tasks)]
    return Collection(title, entries, tasks, tuple(scores))


def _last_losses(entry: Entry) -> Iterable[Score]:
    """A loss is the one number of a plain run whose direction is known."""
    for run in entry.runs:
        for task in run.tasks:
            value = _last(run, f"val/loss/{task}/epoch")
            if value is not None:
                yield Score(entry.name, str(run.folder), task, "loss", value, False, "val", False)


def _baselines(run: RunRecords, tasks: Sequence[str]) -> Iterable[Score]:
    if len(run.tasks) != 1 or run.tasks[0] not in tasks:
        found = f"{', '.join(run.tasks) or 'no task'} in {run.folder}"
        raise UserError("--single-task", f"takes a run of one of the tasks {', '.join(tasks)}", found)
    task = run.tasks[0]
    for name in run.metrics:
        words, value = name.split("/"), _last(run, name)
        if value is not None and words[0] == "val" and words[-1] == "epoch" and task in words[1:3]:
            metric = "loss" if words[1] == "loss" else words[2]
            yield Score(run.folder.name, str(run.folder), task, metric, value, False, "val", True)


def _last(run: RunRecords, name: str) -> float | None:
    if name not in run.metrics:
        return None
    return float(run.metrics[name][1][-1])


def _short_names(paths: Sequence[Path]) -> list[str]:
    """As many of the last parts of the paths as it takes to tell them apart."""
    parts = [path.resolve().parts for path in paths]
    for depth in range(1, max(map(len, parts)) + 1):
        names = ["/".join(words[-depth:]) for words in parts]
        if len({*names}) == len(names):
            return names
    return names


def _comparison(folder: Path) -> Collection:
    definition = read_yaml(folder / COMPARISON)
    results = folder / "results.parquet"
    if not results.exists():
        raise UserError(
            str(folder), "the comparison has no results yet", None, "Run `polytask compare` to its end"
        )
    table = read_table(results, _RESULTS)
    for place, direction in enumerate(table["higher_is_better"]):
        if np.isnan(direction):
            metric = table["metric"][place]
            raise UserError(
                str(results),
                f"must say whether a higher {metric} is better",
                None,
                "Run `polytask compare` again",
            )
    scores = tuple(_scores(table))
    entries = tuple(_entries(folder, table))
    return Collection(
        folder.resolve().name,
        entries,
        _common_tasks(entries) or tuple(dict.fromkeys(score.task for score in scores)),
        scores,
        _read_csv(folder / "table.csv"),
        definition,
    )


def _label(method: str, architecture: str, several: bool) -> str:
    return f"{method} · {architecture}" if several else method


def _scores(table: Table) -> Iterable[Score]:
    several = len({*table["architecture"]}) > 1
    for row in zip(*(table[name] for name in _RESULTS), strict=True):
        method, architecture, kind, _, task, metric, value, higher, split, run = row
        name = _label(method, architecture, several)
        yield Score(name, run, task, metric, float(value), bool(higher), split, kind == "single_task")


def _entries(folder: Path, table: Table) -> Iterable[Entry]:
    """The methods; single-task models are drawn as levels."""
    several = len({*table["architecture"]}) > 1
    runs: dict[str, dict[str, None]] = {}
    rows = zip(table["method"], table["architecture"], table["kind"], table["run"], strict=True)
    for method, architecture, kind, run in rows:
        if kind != "single_task":
            runs.setdefault(_label(method, architecture, several), {})[run] = None
    for name, found in runs.items():
        yield Entry(name, tuple(read_run(_inside(folder, run)) for run in found))


def _inside(folder: Path, run: str) -> Path:
    path = folder / run
    if not path.resolve().is_relative_to(folder.resolve()):
        raise UserError(str(folder / "results.parquet"), "names runs inside the comparison only", run)
    return path


def _read_csv(file: Path) -> tuple[tuple[str, ...], ...]:
    if not file.exists():
        return ()
    with file.open(newline="") as lines:
        rows = tuple(tuple(row) for row in csv.reader(lines))
    if not rows or any(len(row) != len(rows[0]) for row in rows):
        found = "an empty file" if not rows else "rows of different lengths"
        raise UserError(str(file), "must be a table", found, "Run `polytask compare` again")
    return rows


def _common_tasks(entries: Sequence[Entry]) -> tuple[str, ...]:
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
