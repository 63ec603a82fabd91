"""What the page compares: single runs, or the methods of a comparison with their seeds."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from polytask._errors import UserError
from polytask.report._charts import Grid, Row
from polytask.report._records import RunRecords, read_run, read_yaml

if TYPE_CHECKING:
    from polytask.compare import Result

COMPARISON = "comparison.yaml"
_SINGLE = "single_task"


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
        entries: Runs or methods; all of the same tasks.
        tasks: The tasks, in order.
        scores: Numbers of each run whose direction is known.
        split: The data that the scores are of.
        baselines: Runs of single-task models.
        levels: Validation values of single-task models, by task and metric; means over seeds.
        table: The comparison's table; None for plain runs.
        definition: The comparison's definition; empty for plain runs.
    """

    name: str
    entries: tuple[Entry, ...]
    tasks: tuple[str, ...]
    scores: tuple[Score, ...] = ()
    split: str = "val"
    baselines: tuple[RunRecords, ...] = ()
    levels: Mapping[tuple[str, str], float] = field(default_factory=dict)
    table: Grid | None = None
    definition: Mapping[str, Any] = field(default_factory=dict)


def collect(paths: Sequence[Path], single_task: Sequence[Path] = ()) -> Collection:
    """Runs, or one comparison.

    Args:
        paths: Folders of runs, or one comparison's folder.
        single_task: Runs of single tasks, for the baselines of plain runs.

    Raises:
        UserError: Where a path is neither, runs and a comparison are mixed, runs have different tasks, or a
            file is empty or damaged.

    Example:
        >>> collect([Path("runs/digits/20260131-120000-1a2b3c")])
        Traceback (most recent call last):
        ...
        polytask._errors.UserError: runs/digits/20260131-120000-1a2b3c: must be the folder of a run or of ...
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
    baselines = [read_run(path) for path in single_task]
    for run in baselines:
        if len(run.tasks) != 1 or run.tasks[0] not in tasks:
            found = f"{', '.join(run.tasks) or 'no task'} in {run.folder}"
            raise UserError("--single-task", f"takes a run of one of the tasks {', '.join(tasks)}", found)
    scores = [score for entry in entries for score in _last_losses(entry, entry.runs, False)]
    scores += _last_losses(Entry("", ()), baselines, True)
    levels = _levels((run.tasks[0], run) for run in baselines)
    return Collection(title, entries, tasks, tuple(scores), baselines=tuple(baselines), levels=levels)


def _last_losses(entry: Entry, runs: Iterable[RunRecords], is_baseline: bool) -> list[Score]:
    """A loss is the one number of a plain run whose direction is known."""
    return [
        Score(entry.name, str(run.folder), task, "loss", value, False, is_baseline)
        for run in runs
        for (task, metric), value in _last_values(run).items()
        if metric == "loss"
    ]


def _levels(runs: Iterable[tuple[str, RunRecords]]) -> dict[tuple[str, str], float]:
    """Means of the last values of the task that each run was trained on; it may measure others."""
    found: dict[tuple[str, str], list[float]] = {}
    for task, run in runs:
        for place, value in _last_values(run).items():
            if place[0] == task:
                found.setdefault(place, []).append(value)
    return {place: sum(values) / len(values) for place, values in found.items()}


def _last_values(run: RunRecords) -> dict[tuple[str, str], float]:
    """The last validation loss and metrics, by task and metric."""
    found = {}
    for name, (_, values) in run.metrics.items():
        words = name.split("/")
        if len(words) == 4 and words[0] == "val" and words[3] == "epoch" and words[2] != "total":
            place = (words[2], "loss") if words[1] == "loss" else (words[1], words[2])
            found[place] = float(values[-1])
    return found


def _short_names(paths: Sequence[Path]) -> list[str]:
    """As many of the last parts of the paths as it takes to tell them apart."""
    parts = [path.resolve().parts for path in paths]
    names: list[str] = []
    for depth in range(1, max(map(len, parts)) + 1):
        names = ["/".join(words[-depth:]) for words in parts]
        if len({*names}) == len(names):
            break
    return names


def _comparison(folder: Path) -> Collection:
    from polytask.compare import Table, read_results

    definition = read_yaml(folder / COMPARISON)
    results = read_results(folder)
    table = Table(results, int(definition.get("trials", 1)))
    several = len({one.architecture for one in results}) > 1
    entries = tuple(_entries(folder, results, several))
    trained = dict.fromkeys((one.task, one.run) for one in results if one.kind == _SINGLE)
    singles = [(task, read_run(_inside(folder, run))) for task, run in trained]
    return Collection(
        name=folder.resolve().name,
        entries=entries,
        tasks=_common_tasks(entries) or tuple(dict.fromkeys(one.task for one in results)),
        scores=tuple(_score(one, several) for one in results),
        split=results[0].split,
        baselines=tuple(run for _, run in singles),
        levels=_levels(singles),
        table=Grid(
            tuple(table.header()),
            tuple(Row(tuple(table.cells(row))) for row in table.rows),
            tuple(table.notes()),
            tuple(table.sentences()),
        ),
        definition=definition,
    )


def _score(one: "Result", several: bool) -> Score:
    name, single = _label(one, several), one.kind == _SINGLE
    return Score(name, one.run, one.task, one.metric, one.value, one.higher_is_better, single)


def _label(one: "Result", several: bool) -> str:
    return f"{one.method} · {one.architecture}" if several else one.method


def _entries(folder: Path, results: "Sequence[Result]", several: bool) -> Iterable[Entry]:
    """The methods; single-task models are drawn as levels."""
    runs: dict[str, dict[str, None]] = {}
    for one in results:
        if one.kind != _SINGLE:
            runs.setdefault(_label(one, several), {})[one.run] = None
    for name, found in runs.items():
        yield Entry(name, tuple(read_run(_inside(folder, run)) for run in found))


def _inside(folder: Path, run: str) -> Path:
    path = folder / run
    if not path.resolve().is_relative_to(folder.resolve()):
        raise UserError(str(folder / "results.parquet"), "names runs inside the comparison only", run)
    return path


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
