"""The tables of the page: results, configs and environments."""

import math
from collections.abc import Iterable, Mapping
from typing import Any

from polytask.report._charts import Grid, GridRow
from polytask.report._entries import SINGLE_TASK, Collection
from polytask.report._records import RunRecords
from polytask.runs._environment import version, versions

_OR = " | "
_ENVIRONMENTS = (
    "The environments in which the runs were trained, and the one that wrote this page. If the runs of a "
    "column differ, or a run was resumed in another environment, the cell has all values, separated by '|'. "
    "An empty cell was not recorded."
)


def results(collection: Collection) -> Grid | None:
    """The table of a finished comparison, or the last values of runs."""
    if collection.definition:
        return collection.table
    found = [_last_values(entry.runs[0]) for entry in collection.entries]
    keys = list(dict.fromkeys(name for values in found for name in values))
    if not keys:
        return None
    rows = [
        GridRow((entry.name, *(_shown(values[name]) if name in values else "" for name in keys)))
        for entry, values in zip(collection.entries, found, strict=True)
    ]
    return Grid(("run", *keys), tuple(rows), ("The last value of each run on validation and test data.",))


def _shown(value: float) -> str:
    return "–" if math.isnan(value) else f"{value:.4g}"


def configs(collection: Collection) -> Grid:
    """Keys and values of the first run of each entry, and of each task's single-task models."""
    runs = {entry.name: entry.runs[0] for entry in collection.entries}
    runs |= {f"{one.entry.name}, {one.task}": one.entry.runs[0] for one in collection.baselines}
    flat = [dict(flatten(run.config)) for run in runs.values()]
    keys = list(dict.fromkeys(name for values in flat for name in values))
    rows = []
    for name in keys:
        cells = tuple(values.get(name, "") for values in flat)
        rows.append(GridRow((name, *cells), differs=len({*cells}) > 1))
    return Grid(("key", *runs), tuple(rows))


def definition(collection: Collection) -> Grid:
    """The definition of a comparison."""
    return Grid(("key", "value"), tuple(GridRow(row) for row in flatten(collection.definition)))


def environments(collection: Collection) -> Grid:
    """The environments of each entry's runs, and the one that writes the page."""
    trained = [(entry.name, entry.runs) for entry in collection.entries]
    if collection.baselines:
        singles = tuple(run for one in collection.baselines for run in one.entry.runs)
        trained.append((SINGLE_TASK, singles))
    found = [_seen(runs) for _, runs in trained]
    own = {**versions(), "plotly": version("plotly")}
    keys = list(dict.fromkeys([*(name for values in found for name in values), *own]))
    rows = []
    for name in keys:
        cells = tuple(values.get(name, "") for values in found)
        differs = len({*cells}) > 1 or any(_OR in cell for cell in cells)
        rows.append(GridRow((name, *cells, own.get(name, "")), differs))
    header = ("what", *(name for name, _ in trained), "this page")
    return Grid(header, tuple(rows), (_ENVIRONMENTS,))


def _seen(runs: Iterable[RunRecords]) -> dict[str, str]:
    """All values of each key, in order."""
    found: dict[str, dict[str, None]] = {}
    for run in runs:
        for one in run.environments:
            for name, value in one.items():
                found.setdefault(name, {})[value] = None
    return {name: _OR.join(values) for name, values in found.items()}


def flatten(value: Any, prefix: str = "") -> Iterable[tuple[str, str]]:
    """Dotted keys and their values as strings.

    Example:
        >>> list(flatten({"a": {"b": 1, "c": []}, "d": ["x", None]}))
        [('a.b', '1'), ('a.c', '[]'), ('d.0', 'x'), ('d.1', 'null')]
    """
    inside: dict[Any, Any] = {}
    if isinstance(value, Mapping):
        inside = dict(value)
    elif isinstance(value, list):
        inside = dict(enumerate(value))
    if not inside:
        if prefix:
            yield prefix, "null" if value is None else str(value)
        return
    for name, part in inside.items():
        yield from flatten(part, f"{prefix}.{name}" if prefix else str(name))


def _last_values(run: RunRecords) -> dict[str, float]:
    return {name: value for name, value in run.last.items() if name.split("/")[0] in ("val", "test")}
