"""Tables of the page: results, configs side by side, versions."""

import platform
from collections.abc import Iterable, Mapping
from importlib import metadata
from typing import Any

from polytask.report._charts import Grid, Row
from polytask.report._entries import Collection, Entry

_PACKAGES = ("polytask", "torch", "pytorch-lightning", "torchmetrics", "numpy", "plotly")


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


def versions() -> Grid:
    """The machine and the packages that wrote the page."""
    rows = [Row(("Python", platform.python_version())), Row(("system", platform.platform()))]
    rows += [Row((name, _version(name))) for name in _PACKAGES]
    return Grid(
        ("what", "is"), tuple(rows), ("Of the machine that wrote this page; the runs may have used another.",)
    )


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


def _version(package: str) -> str:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return "not installed"
