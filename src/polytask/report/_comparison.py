"""Reads a comparison: with its table if it is finished, else the runs so far."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from polytask._checks import is_integer
from polytask._errors import UserError
from polytask.compare._names import (
    COST,
    DEFINITION,
    RESULTS,
    RUNS,
    SINGLE,
    SUM,
    candidate_name,
    row_name,
    seed_run,
    trial_run,
)
from polytask.report._charts import Grid, GridRow
from polytask.report._entries import (
    SINGLE_TASK,
    Baseline,
    Collection,
    Entry,
    Score,
    common_tasks,
    last_losses,
)
from polytask.report._records import RunRecords, read_run, read_yaml
from polytask.runs import CONFIG

if TYPE_CHECKING:
    from polytask.compare import Result

_FIX = "Run `polytask compare` again"


@dataclass(frozen=True)
class _Trained:
    """A run of a comparison.

    Args:
        name: The entry that it belongs to.
        task: Its task if it is a single-task model.
        run: Its folder, relative to the comparison's.
        row: The name of its row in the remarks.
    """

    name: str
    task: str | None
    run: str
    row: str

    @property
    def candidate(self) -> str:
        """The prefix of the names of its folders and its trials' folders."""
        return Path(self.run).name.rsplit("-seed", 1)[0]


def read_comparison(folder: Path) -> Collection:
    """Read a comparison.

    Args:
        folder: Its folder.

    Raises:
        UserError: If a file is empty or damaged.
    """
    definition = read_yaml(folder / DEFINITION)
    finished = (folder / RESULTS).exists()
    return _finished(folder, definition) if finished else _unfinished(folder, definition)


def _finished(folder: Path, definition: Mapping[str, Any]) -> Collection:
    from polytask.compare import Table, read_results
    from polytask.compare._remarks import read_remarks

    results, remarks = read_results(folder), read_remarks(folder)
    if not results:
        raise UserError(str(folder / RESULTS), "must have a row for each value of each run", "none", _FIX)
    table = Table(results, _trials(folder / DEFINITION, definition), remarks)
    several = len({one.architecture for one in results}) > 1
    trained = list(dict.fromkeys(_of_result(one, several) for one in results))
    at_hand = [one for one in trained if one.task is None or (folder / one.run / CONFIG).is_file()]
    entries, baselines = _read(folder, at_hand)
    return Collection(
        name=folder.resolve().name,
        entries=entries,
        tasks=common_tasks(entries) or tuple(dict.fromkeys(one.task for one in results)),
        scores=tuple(_score(one, several) for one in results),
        split=results[0].split,
        baselines=baselines,
        levels=_levels(results, {one.run for one in at_hand}),
        table=Grid(
            tuple(table.header()),
            tuple(GridRow(tuple(table.cells(row))) for row in table.rows),
            tuple(table.notes()),
            tuple(table.sentences()),
        ),
        definition=definition,
        note=_stale(folder, definition, {one.run for one in results}, remarks.left_out),
    )


def _unfinished(folder: Path, definition: Mapping[str, Any]) -> Collection:
    tasks = _tasks(folder / DEFINITION, definition)
    planned = _planned(folder / DEFINITION, definition, tasks)
    done = {one.run for one in planned if (folder / one.run / COST).exists()}
    begun = [one for one in planned if (folder / one.run / CONFIG).is_file()]
    entries, baselines = _read(folder, begun)
    ended = {folder / run for run in done}
    tried = _tried(folder, definition, planned)
    scores = [
        *(last_losses(entry.name, _those(entry, ended)) for entry in entries),
        *(last_losses(one.entry.name, _those(one.entry, ended), one.task) for one in baselines),
    ]
    return Collection(
        name=folder.resolve().name,
        entries=entries,
        tasks=common_tasks(entries) or tasks,
        scores=tuple(score for found in scores for score in found),
        baselines=baselines,
        definition=definition,
        note=f"unfinished: {tried}{len(done)} of {len(planned)} runs are trained",
    )


def _tried(folder: Path, definition: Mapping[str, Any], planned: Sequence[_Trained]) -> str:
    """How many trials, which come before the runs, are done."""
    trials = _trials(folder / DEFINITION, definition)
    candidates = dict.fromkeys(one.candidate for one in planned)
    runs = [folder / RUNS / trial_run(name, number) for name in candidates for number in range(trials)]
    done = sum((run / COST).exists() for run in runs)
    return f"{done} of {len(runs)} trials and " if trials > 1 else ""


def _stale(folder: Path, definition: Mapping[str, Any], runs: set[str], left_out: Mapping[str, str]) -> str:
    """A remark if the definition has more runs than the table."""
    planned = _planned(folder / DEFINITION, definition, _tasks(folder / DEFINITION, definition))
    missing = sum(one.run not in runs and one.row not in left_out for one in planned)
    if not missing:
        return ""
    return f"the table lacks {missing} of the {len(planned)} runs of the definition"


def _those(entry: Entry, folders: set[Path]) -> list[RunRecords]:
    return [run for run in entry.runs if run.folder in folders]


def _read(folder: Path, trained: Iterable[_Trained]) -> tuple[tuple[Entry, ...], tuple[Baseline, ...]]:
    """Read the runs, grouped by entry."""
    grouped: dict[tuple[str, str | None], list[RunRecords]] = {}
    for one in trained:
        if not (folder / one.run).resolve().is_relative_to(folder.resolve()):
            raise UserError(str(folder), "runs must be inside the comparison's folder", one.run, _FIX)
        grouped.setdefault((one.name, one.task), []).append(read_run(folder / one.run))
    entries = tuple(Entry(name, tuple(runs)) for (name, task), runs in grouped.items() if task is None)
    return entries, tuple(
        Baseline(task, Entry(name, tuple(runs))) for (name, task), runs in grouped.items() if task is not None
    )


def _of_result(one: "Result", several: bool) -> _Trained:
    row = row_name(one.method, one.architecture)
    if one.kind == SINGLE:
        return _Trained(_label(SINGLE_TASK, one.architecture, several), one.task, one.run, row)
    return _Trained(_label(one.method, one.architecture, several), None, one.run, row)


def _score(one: "Result", several: bool) -> Score:
    name = _label(one.method, one.architecture, several)
    single = one.kind == SINGLE
    return Score(name, one.run, one.task, one.metric, one.value, one.higher_is_better, single)


def _label(method: str, architecture: str, several: bool) -> str:
    return f"{method} · {architecture}" if several else method


def _levels(results: Sequence["Result"], at_hand: set[str]) -> dict[tuple[str, str], float]:
    """Mean validation values of the single-task models whose run folders do not exist."""
    found: dict[tuple[str, str], list[float]] = {}
    for one in results:
        if one.run not in at_hand and one.split == "val":
            found.setdefault((one.task, one.metric), []).append(one.value)
    return {key: sum(values) / len(values) for key, values in found.items()}


def _planned(file: Path, definition: Mapping[str, Any], tasks: Sequence[str]) -> list[_Trained]:
    """All runs of the definition, in order."""
    methods, architectures = (_names(file, definition, key) for key in ("methods", "architectures"))
    seeds = definition.get("seeds")
    if not isinstance(seeds, list):
        raise UserError(f"{file}: seeds", "must be a list", repr(seeds), _FIX)
    singles = tasks if definition.get("single_task") else ()
    rows = [*((SINGLE, task) for task in singles), *((method, None) for method in (SUM, *methods))]
    several = len(architectures) > 1
    return [
        _Trained(
            _label(method if task is None else SINGLE_TASK, architecture, several),
            task,
            f"{RUNS}/{seed_run(candidate_name(method, architecture, task), seed)}",
            row_name(method, architecture),
        )
        for architecture in architectures
        for method, task in rows
        for seed in seeds
    ]


def _names(file: Path, definition: Mapping[str, Any], key: str) -> list[str]:
    found = definition.get(key)
    if not isinstance(found, dict):
        raise UserError(f"{file}: {key}", "must be a mapping", repr(found), _FIX)
    return [str(name) for name in found]


def _tasks(file: Path, definition: Mapping[str, Any]) -> tuple[str, ...]:
    node: Any = definition
    for key in ("config", "system", "criterion", "task_losses"):
        node = node.get(key) if isinstance(node, dict) else None
    if not isinstance(node, dict) or not node:
        rule = "must be a mapping from tasks to losses"
        raise UserError(f"{file}: config.system.criterion.task_losses", rule, repr(node), _FIX)
    return tuple(str(name) for name in node)


def _trials(file: Path, definition: Mapping[str, Any]) -> int:
    found = definition.get("trials", 1)
    if not is_integer(found, 1):
        raise UserError(f"{file}: trials", "must be an integer of at least 1", repr(found), _FIX)
    return found
