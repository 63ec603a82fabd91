"""The sections on losses, metrics and weights over training."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from polytask.report._charts import Chart, Line, Lines, Section, View, listed, over_seeds, single
from polytask.report._entries import SINGLE_TASK, Collection, Entry
from polytask.report._records import RunRecords
from polytask.runs._metrics_csv import Series

if TYPE_CHECKING:
    from polytask.diagnostics import Values

_VIEWS = (
    ("val", "epoch", "validation"),
    ("train", "epoch", "training"),
    ("train", "step", "training, within epochs"),
)


def losses(collection: Collection) -> Section:
    """A chart for each task, with a line for each entry and dashed lines for single-task models."""
    charts = (
        _chart(collection, task, "loss", f"Loss of {task}", f"loss/{task}") for task in collection.tasks
    )
    recorded = [
        single(f"Recorded loss of {task}", _seeds(collection), plot) for task, plot in _recorded(collection)
    ]
    found = (*(chart for chart in charts if chart is not None), *recorded)
    hint = "" if found else "No losses yet: metrics.csv has them after the first log_every_n_steps steps."
    return Section("Losses", found, hint)


def metrics(collection: Collection) -> Section:
    """A chart for each metric of each task."""
    charts = (
        _chart(collection, task, metric, f"{metric} of {task}", f"{task}/{metric}")
        for task in collection.tasks
        for metric in _metric_names(collection, task)
    )
    found = tuple(chart for chart in charts if chart is not None)
    hint = "" if found else "No metrics: add some under system.metrics in the config."
    return Section("Metrics", found, hint)


def weights(collection: Collection) -> Section:
    """A chart for each entry, with a line for each task."""
    found = (_weight_chart(entry, collection.tasks) for entry in collection.entries)
    charts = tuple(chart for chart in found if chart is not None)
    hint = "" if charts else "No weights yet: metrics.csv has them after the first log_every_n_steps steps."
    return Section("Weights", charts, hint)


def _weight_chart(entry: Entry, tasks: Sequence[str]) -> Chart | None:
    """The effective weights, and the weighting's own if they differ."""
    effective = _weight_lines(entry, tasks, _weights)
    if not effective:
        return None
    views = [View("effective", Lines("weight", effective))]
    note = "Effective weight of each task, d total / d loss."
    if any(_own_differ(run) for run in entry.runs):
        own = _weight_lines(entry, tasks, lambda run, task: _column(run.weights.get("own"), task))
        views.append(View("own", Lines("weight", own)))
        note += " Own: the weight of the weighting, before loss_weights."
    return listed(f"Weights, {entry.name}", note + _spread(entry), views, "weights")


def _weight_lines(
    entry: Entry, tasks: Sequence[str], weights_of: Callable[[RunRecords, str], Series | None]
) -> tuple[Line, ...]:
    return tuple(
        over_seeds(task, index, series)
        for index, task in enumerate(tasks)
        if (series := [found for run in entry.runs if (found := weights_of(run, task)) is not None])
    )


def _own_differ(run: RunRecords) -> bool:
    values = [kind.values for kind in run.weights.values()]
    return any(not np.array_equal(one, values[0], equal_nan=True) for one in values[1:])


def _chart(collection: Collection, task: str, metric: str, title: str, key: str) -> Chart | None:
    views = []
    for stage, when, label in _VIEWS:
        name = f"{stage}/{key}/{when}"
        lines = (*_lines(collection.entries, name), *_baselines(collection, task, name))
        if lines:
            levels = _levels(collection, task, metric) if stage == "val" else ()
            views.append(View(label, Lines(metric, lines, levels)))
    if not views:
        return None
    return listed(title, _seeds(collection), views, "data")


def _lines(entries: Sequence[Entry], name: str) -> tuple[Line, ...]:
    found = []
    for index, entry in enumerate(entries):
        series = [run.metrics[name] for run in entry.runs if name in run.metrics]
        if series:
            found.append(over_seeds(entry.name, index, series))
    return tuple(found)


def _baselines(collection: Collection, task: str, name: str) -> tuple[Line, ...]:
    entries = [one.entry for one in collection.baselines if one.task == task]
    return tuple(replace(line, is_baseline=True) for line in _lines(entries, name))


def _metric_names(collection: Collection, task: str) -> list[str]:
    entries = (*collection.entries, *(one.entry for one in collection.baselines if one.task == task))
    keys = [name.split("/") for entry in entries for run in entry.runs for name in run.metrics]
    return list(dict.fromkeys(parts[2] for parts in keys if len(parts) == 4 and parts[1] == task))


def _levels(collection: Collection, task: str, metric: str) -> tuple[tuple[str, float], ...]:
    level = collection.levels.get((task, metric))
    return () if level is None else ((SINGLE_TASK, level),)


def _weights(run: RunRecords, task: str) -> Series | None:
    """The recorded weights, else the logged ones."""
    return _column(run.weights.get("effective"), task) or run.metrics.get(f"weights/{task}")


def _recorded(collection: Collection) -> Iterable[tuple[str, Lines]]:
    for task in collection.tasks:
        lines = []
        for index, entry in enumerate(collection.entries):
            series = [found for run in entry.runs if (found := _column(run.losses, task)) is not None]
            if series:
                lines.append(over_seeds(entry.name, index, series))
        if lines:
            yield task, Lines("loss", tuple(lines))


def _column(recorded: "Values | None", task: str) -> Series | None:
    if recorded is None or task not in recorded.tasks:
        return None
    return recorded.steps, recorded.values[:, recorded.tasks.index(task)]


def _seeds(collection: Collection) -> str:
    return _spread(*collection.entries, *(one.entry for one in collection.baselines)).strip()


def _spread(*entries: Entry) -> str:
    most = max(len(entry.runs) for entry in entries)
    return "" if most == 1 else f" Line: mean over {most} seeds; band: minimum to maximum."
