"""The section on affinities: which task's step helps which other task, and which tasks to train together."""

from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from polytask._errors import UserError
from polytask.report._charts import Chart, Grid, GridRow, Heat, Section, View, listed
from polytask.report._entries import Collection, Entry
from polytask.report._gradient_section import arranged, mean_of

if TYPE_CHECKING:
    from polytask.diagnostics import Affinities

_HINT = "No affinities recorded: add {_target_: polytask.diagnostics.Affinity} to trainer.callbacks."
_MOST_MODELS = 4


def affinity(collection: Collection) -> Section:
    """A heat map of each entry's mean over training, and the best groupings of the tasks."""
    found = [(entry, _means(entry, collection.tasks)) for entry in collection.entries]
    found = [(entry, means) for entry, means in found if means]
    if not found:
        return Section("Affinity", (), _HINT)
    charts = tuple(_chart(entry, means) for entry, means in found)
    rows = tuple(row for entry, means in found for row in _groupings(entry.name, means[0]))
    notes = (
        "The best partition of the tasks into the given number of models. The score is the mean affinity "
        "from the other tasks of a model.",
    )
    grid = Grid(("run", "models", "proposed groups", "score", "search"), rows, notes)
    return Section("Affinity", charts, grid=grid if rows else None)


def _means(entry: Entry, tasks: Sequence[str]) -> "list[Affinities]":
    """The mean over seeds of each form."""
    forms: dict[str, list[Affinities]] = {}
    for run in entry.runs:
        for form, one in run.affinities.items():
            forms.setdefault(form, []).append(one)
    return [
        replace(
            ones[0],
            tasks=tuple(tasks),
            values=mean_of([arranged(one.values, one.tasks, tasks) for one in ones]),
        )
        for ones in forms.values()
    ]


def _chart(entry: Entry, means: "Sequence[Affinities]") -> Chart:
    views = [View(one.form.replace("_", " "), _heat(one)) for one in means]
    note = "Mean over training. Above 0: a step on the row's task lowers the loss of the column's task."
    return listed(f"Affinity, {entry.name}", note, views, "form")


def _heat(mean: "Affinities") -> Heat:
    largest = float(np.abs(mean.values[np.isfinite(mean.values)]).max(initial=0.0))
    return Heat("a step on", "changes the loss of", mean.tasks, mean.values, largest or 1.0)


def _groupings(name: str, mean: "Affinities") -> Iterable[GridRow]:
    from polytask.diagnostics import group_tasks

    for models in range(2, min(_MOST_MODELS, len(mean.tasks)) + 1):
        try:
            found = group_tasks(mean, models)
        except UserError as error:
            yield GridRow((name, str(models), str(error), "", ""))
            return
        if len(found.groups) < models:
            return
        groups = " | ".join(", ".join(group) for group in found.groups)
        search = "best of all partitions" if found.exact else "greedy"
        yield GridRow((name, str(models), groups, f"{found.score:+.3g}", search))
