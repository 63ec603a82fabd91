"""Gradients of the tasks on what they share: norms, cosines, conflicts."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from polytask.report._charts import (
    MOST_FRAMES,
    Chart,
    Heat,
    Line,
    Lines,
    Section,
    View,
    listed,
    over_seeds,
    thinned,
)
from polytask.report._entries import Collection, Entry
from polytask.report._records import RunRecords, Table

_HINT = "No gradients recorded: add {_target_: polytask.diagnostics.GradientRecorder} to trainer.callbacks."
Gramians = tuple[NDArray[np.int64], NDArray[np.float64]]
"""Steps, and a tasks × tasks matrix for each."""


def gradients(collection: Collection) -> Section:
    """Norms, the conflict rate and cosines."""
    entries = [entry for entry in collection.entries if _groups(entry)]
    if not entries:
        return Section("Gradients", (), _HINT)
    tasks = collection.tasks
    charts = [_norm_chart(entry, tasks) for entry in entries]
    if len(tasks) > 1:
        charts.append(_conflict_chart(collection))
        charts += [_cosine_chart(entry, group, tasks) for entry in entries for group in _groups(entry)]
    return Section("Gradients", tuple(charts))


def gramians(table: Table, group: str, tasks: Sequence[str]) -> Gramians:
    """The recorded Gramians of a layer group; NaN for a task that was absent."""
    rows = table["group"] == group
    steps, at = np.unique(table["step"][rows], return_inverse=True)
    places = {name: place for place, name in enumerate(tasks)}
    first, second = (np.array([places[name] for name in table[key][rows]], int) for key in ("task", "other"))
    found = np.full((len(steps), len(tasks), len(tasks)), np.nan)
    found[at, first, second] = found[at, second, first] = table["inner"][rows]
    return steps, found


def norms(found: NDArray[np.float64]) -> NDArray[np.float64]:
    """Gradient norms `(steps, tasks)` of Gramians `(steps, tasks, tasks)`."""
    # The rounding of a gradient that is nearly zero can make its square negative.
    return np.sqrt(np.maximum(np.diagonal(found, axis1=1, axis2=2), 0))


def cosines(found: NDArray[np.float64]) -> NDArray[np.float64]:
    """Pairwise cosines of Gramians; NaN where a gradient is zero."""
    length = norms(found)
    scale = length[:, :, None] * length[:, None, :]
    return np.divide(found, scale, out=np.full_like(found, np.nan), where=scale > 0)


def conflict_rate(found: NDArray[np.float64]) -> NDArray[np.float64]:
    """Share of the pairs of present tasks whose gradients have a negative product, at each step."""
    first, second = np.triu_indices(found.shape[1], k=1)
    pairs = found[:, first, second]
    present = np.isfinite(pairs).sum(axis=1)
    rate: NDArray[np.float64] = np.where(present, (pairs < 0).sum(axis=1) / np.maximum(present, 1), np.nan)
    return rate


def _norm_chart(entry: Entry, tasks: Sequence[str]) -> Chart:
    views = []
    for group in _groups(entry):
        runs = _runs(entry, group, tasks)
        lines = tuple(
            over_seeds(task, place, [(steps, norms(found)[:, place]) for steps, found in runs])
            for place, task in enumerate(tasks)
        )
        views.append(View(group, Lines("gradient norm", lines)))
    note = "A task whose gradient is much the longest decides the step."
    return listed(f"Gradient norms, {entry.name}", note, views, "layers")


def _conflict_chart(collection: Collection) -> Chart:
    groups = dict.fromkeys(group for entry in collection.entries for group in _groups(entry))
    views = []
    for group in groups:
        lines: list[Line] = []
        for place, entry in enumerate(collection.entries):
            runs = _runs(entry, group, collection.tasks)
            if runs:
                rates = [(steps, conflict_rate(found)) for steps, found in runs]
                lines.append(over_seeds(entry.name, place, rates))
        views.append(View(group, Lines("share of pairs in conflict", tuple(lines))))
    return listed(
        "Conflict rate", "Pairs of tasks whose gradients point against each other.", views, "layers"
    )


def _cosine_chart(entry: Entry, group: str, tasks: Sequence[str]) -> Chart:
    matrices: dict[int, list[NDArray[np.float64]]] = {}
    for steps, found in _runs(entry, group, tasks):
        for step, matrix in zip(steps.tolist(), cosines(found), strict=True):
            matrices.setdefault(step, []).append(matrix)
    steps_seen = np.array(sorted(matrices))
    kept = steps_seen[thinned(len(steps_seen), MOST_FRAMES)].tolist()
    views = tuple(
        View(f"step {step}", Heat("", "", tuple(tasks), mean_of(matrices[step]), 1.0))
        for step in kept
    )
    where = "" if group == "shared" else f", {group}"
    note = "Below 0 two tasks pull in opposite directions." + (
        " Mean over seeds." if len(entry.runs) > 1 else ""
    )
    return Chart(f"Gradient cosines, {entry.name}{where}", note, views, "slider", "training")


def mean_of(matrices: Sequence[NDArray[np.float64]]) -> NDArray[np.float64]:
    """The mean of each entry over the matrices in which it is a number."""
    stack = np.stack(matrices)
    known = np.isfinite(stack)
    counts = known.sum(axis=0)
    total = np.where(known, stack, 0.0).sum(axis=0)
    mean: NDArray[np.float64] = np.where(counts > 0, total / np.maximum(counts, 1), np.nan)
    return mean


def _groups(entry: Entry) -> list[str]:
    tables = [table for run in entry.runs if (table := _table(run)) is not None]
    return list(dict.fromkeys(str(group) for table in tables for group in table["group"]))


def _runs(entry: Entry, group: str, tasks: Sequence[str]) -> list[Gramians]:
    tables = [table for run in entry.runs if (table := _table(run)) is not None]
    return [gramians(table, group, tasks) for table in tables if (table["group"] == group).any()]


def _table(run: RunRecords) -> Table | None:
    return run.tables.get("gradients")
