"""Tables of the page: results, configs and environments side by side."""

from collections.abc import Iterable, Mapping
from typing import Any

from polytask._environment import version, versions
from polytask.report._charts import Grid, Row
from polytask.report._entries import Collection, Entry
from polytask.report._records import RunRecords

_OR = " | "
_ENVIRONMENTS = (
    "What the runs were trained with, and what wrote this page. Where runs of one column differ, or one was "
    "resumed with something else, all values stand there, '|' between. An empty cell was not noted."
)


def results(collection: Collection) -> Grid | None:
    """The comparison's own table, or the last values of plain runs."""
    if collection.table is not None:
        return collection.table
    found = [_last_values(entry) for entry in collection.entries]
    keys = list(dict.fromkeys(name for values in found for name in values))
    if not keys:
        return None
    rows = [
        Row((entry.name, *(f"{values[name]:.4g}" if name in values else "" for name in keys)))
        for entry, values in zip(collection.entries, found, strict=True)
    ]
    return Grid(("run", *keys), tuple(rows), ("The last value of each run on validation and test data.",))


def configs(collection: Collection) -> Grid:
    """Keys and values of the first run of each entry."""
    flat = [dict(flatten(entry.runs[0].config)) for entry in collection.entries]
    keys = list(dict.fromkeys(name for values in flat for name in values))
    rows = []
    for name in keys:
        cells = tuple(values.get(name, "") for values in flat)
        rows.append(Row((name, *cells), differs=len({*cells}) > 1))
    return Grid(("key", *(entry.name for entry in collection.entries)), tuple(rows))


def definition(collection: Collection) -> Grid:
    """What a comparison was asked for."""
    return Grid(("key", "value"), tuple(Row(row) for row in flatten(collection.definition)))


def environments(collection: Collection) -> Grid:
    """What each entry's runs were trained with, and what wrote the page."""
    trained = [(entry.name, entry.runs) for entry in collection.entries]
    if collection.baselines:
        trained.append(("single-task", collection.baselines))
    found = [_seen(runs) for _, runs in trained]
    own = {**versions(), "plotly": version("plotly")}
    keys = list(dict.fromkeys([*(name for values in found for name in values), *own]))
    rows = []
    for name in keys:
        cells = tuple(values.get(name, "") for values in found)
        differs = len({*cells}) > 1 or any(_OR in cell for cell in cells)
        rows.append(Row((name, *cells, own.get(name, "")), differs))
    header = ("what", *(name for name, _ in trained), "this page")
    return Grid(header, tuple(rows), (_ENVIRONMENTS,))


def _seen(runs: Iterable[RunRecords]) -> dict[str, str]:
    """Each value of each key, in order."""
    found: dict[str, dict[str, None]] = {}
    for run in runs:
        for one in run.environments:
            for name, value in one.items():
                found.setdefault(name, {})[value] = None
    return {name: _OR.join(values) for name, values in found.items()}


def flatten(value: Any, prefix: str = "") -> Iterable[tuple[str, str]]:
    """Dotted keys and their values in words.

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


def _last_values(entry: Entry) -> dict[str, float]:
    found = {}
    for name, (_, values) in entry.runs[0].metrics.items():
        words = name.split("/")
        if words[0] in ("val", "test") and words[-1] == "epoch":
            found["/".join(words[:-1])] = float(values[-1])
    return found
