"""The section on the tasks' gradients on shared parameters: norms, cosines, conflicts."""

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

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

if TYPE_CHECKING:
    from polytask.diagnostics import Gramians

_HINT = "No gradients recorded: add {_target_: polytask.diagnostics.GradientRecorder} to trainer.callbacks."


def gradients(collection: Collection) -> Section:
    """Gradient norms, the conflict rate, the condition of the Gramian, and cosines."""
    entries = [entry for entry in collection.entries if _groups(entry)]
    if not entries:
        return Section("Gradients", (), _HINT)
    tasks = collection.tasks
    charts = [_norm_chart(entry, tasks) for entry in entries]
    if len(tasks) > 1:
        charts += [_conflict_chart(collection), _condition_chart(collection)]
        charts += [_cosine_chart(entry, group, tasks) for entry in entries for group in _groups(entry)]
    return Section("Gradients", tuple(charts))


def _norm_chart(entry: Entry, tasks: Sequence[str]) -> Chart:
    views = []
    for group in _groups(entry):
        runs = _runs(entry, group)
        lines = tuple(
            over_seeds(
                task,
                index,
                [(run.steps, run.norms[:, run.tasks.index(task)]) for run in runs if task in run.tasks],
            )
            for index, task in enumerate(tasks)
            if any(task in run.tasks for run in runs)
        )
        views.append(View(group, Lines("gradient norm", lines)))
    note = "A task whose gradient is much longer than the others determines the step."
    return listed(f"Gradient norms, {entry.name}", note, views, "layers")


def _conflict_chart(collection: Collection) -> Chart:
    lines = _by_group(collection, lambda found: found.conflict_rate)
    views = [View(group, Lines("share of pairs in conflict", own)) for group, own in lines.items()]
    note = "The share of task pairs whose gradients have a negative cosine."
    return listed("Conflict rate", note, views, "layers")


def _condition_chart(collection: Collection) -> Chart:
    lines = _by_group(collection, lambda found: found.condition)
    views = [View(group, Lines("condition", own, is_log=True)) for group, own in lines.items()]
    note = (
        "Largest divided by smallest eigenvalue of the Gramian. Far above 1: some tasks' gradients are much "
        "longer than others, or almost parallel. A gap: one is a linear combination of the others."
    )
    return listed("Condition of the Gramian", note, views, "layers")


def _by_group(
    collection: Collection, value: "Callable[[Gramians], NDArray[np.float64]]"
) -> dict[str, tuple[Line, ...]]:
    """A line for each entry, by group of layers."""
    groups = dict.fromkeys(group for entry in collection.entries for group in _groups(entry))
    return {
        group: tuple(
            over_seeds(entry.name, index, [(run.steps, value(run)) for run in runs])
            for index, entry in enumerate(collection.entries)
            if (runs := _runs(entry, group))
        )
        for group in groups
    }


def _cosine_chart(entry: Entry, group: str, tasks: Sequence[str]) -> Chart:
    matrices: dict[int, list[NDArray[np.float64]]] = {}
    for run in _runs(entry, group):
        for step, matrix in zip(run.steps.tolist(), run.cosines, strict=True):
            matrices.setdefault(step, []).append(arranged(matrix, run.tasks, tasks))
    steps = np.array(sorted(matrices))
    views = tuple(
        View(f"step {step}", Heat("", "", tuple(tasks), mean_of(matrices[step]), 1.0))
        for step in steps[thinned(len(steps), MOST_FRAMES)].tolist()
    )
    where = f", {group}" if len(_groups(entry)) > 1 else ""
    note = "Below 0: the gradients of the two tasks conflict." + (
        " Mean over seeds." if len(entry.runs) > 1 else ""
    )
    return Chart(f"Gradient cosines, {entry.name}{where}", note, views, "slider", "training")


def arranged(matrix: NDArray[np.float64], own: Sequence[str], tasks: Sequence[str]) -> NDArray[np.float64]:
    """A tasks × tasks matrix in another order of tasks; NaN for tasks that it does not have."""
    indices = np.array([tasks.index(name) for name in own], dtype=np.int64)
    found = np.full((len(tasks), len(tasks)), np.nan)
    found[np.ix_(indices, indices)] = matrix
    return found


def mean_of(matrices: Sequence[NDArray[np.float64]]) -> NDArray[np.float64]:
    """The mean of each entry over the matrices in which it is finite."""
    stack = np.stack(matrices)
    known = np.isfinite(stack)
    counts = known.sum(axis=0)
    total = np.where(known, stack, 0.0).sum(axis=0)
    mean: NDArray[np.float64] = np.where(counts > 0, total / np.maximum(counts, 1), np.nan)
    return mean


def _groups(entry: Entry) -> list[str]:
    return list(dict.fromkeys(group for run in entry.runs for group in run.gradients))


def _runs(entry: Entry, group: str) -> "list[Gramians]":
    return [run.gradients[group] for run in entry.runs if group in run.gradients]
