"""Which task's step helps which other task."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from polytask.report._charts import Chart, Heat, Section, View, listed
from polytask.report._entries import Collection, Entry
from polytask.report._gradients import mean_of

_HINT = "No affinities recorded: add {_target_: polytask.diagnostics.Affinity} to trainer.callbacks."
_FORMS = {"lookahead": "lookahead", "first_order": "first order"}


def affinity(collection: Collection) -> Section:
    """A heat map for each entry: the mean over training."""
    charts = [chart for entry in collection.entries if (chart := _chart(entry, collection.tasks))]
    return Section("Affinity", tuple(charts), "" if charts else _HINT)


def mean_affinity(entry: Entry, form: str, tasks: Sequence[str]) -> NDArray[np.float64]:
    """Mean over training and seeds, `(tasks, tasks)`: how a row's step changes a column's loss."""
    return mean_of(
        [_matrix(run.tables["affinity"], form, tasks) for run in entry.runs if "affinity" in run.tables]
    )


def _chart(entry: Entry, tasks: Sequence[str]) -> Chart | None:
    tables = [run.tables["affinity"] for run in entry.runs if "affinity" in run.tables]
    forms = list(dict.fromkeys(str(form) for table in tables for form in table["form"]))
    views = [View(_FORMS.get(form, form), _heat(mean_affinity(entry, form, tasks), tasks)) for form in forms]
    if not views:
        return None
    note = "Mean over training. Above 0 a step on the row's task lowers the column's loss."
    return listed(f"Affinity, {entry.name}", note, views, "form")


def _heat(values: NDArray[np.float64], tasks: Sequence[str]) -> Heat:
    largest = np.abs(values[np.isfinite(values)]).max(initial=0.0)
    return Heat("a step on", "changes the loss of", tuple(tasks), values, float(largest) or 1.0)


def _matrix(table: dict[str, NDArray[np.generic]], form: str, tasks: Sequence[str]) -> NDArray[np.float64]:
    places = {name: place for place, name in enumerate(tasks)}
    total, count = np.zeros((len(tasks), len(tasks))), np.zeros((len(tasks), len(tasks)))
    rows = (table["form"] == form) & np.isfinite(np.asarray(table["affinity"], float))
    at = tuple(np.array([places[str(name)] for name in table[key][rows]], int) for key in ("task", "other"))
    np.add.at(total, at, np.asarray(table["affinity"], float)[rows])
    np.add.at(count, at, 1)
    mean: NDArray[np.float64] = np.where(count > 0, total / np.maximum(count, 1), np.nan)
    return mean
