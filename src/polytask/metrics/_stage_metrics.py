"""The metrics of a stage by task, updated with the rows of several steps at once."""

import itertools
import re
import sys
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torchmetrics import Metric, MetricCollection

from polytask._checks import is_number
from polytask._errors import Reason, UserError
from polytask._lightning._metrics import set_update_count
from polytask._tasks import TaskModules, check_task_names
from polytask.adapters import MetricsAdapter
from polytask.batch import HALF, take_rows
from polytask.metrics._functions import Function, FunctionMetric, as_metric
from polytask.metrics._keys import entries, may_log

Given = Metric | Function | Sequence[Metric | Function] | Mapping[str, Metric | Function]
_MOST_BYTES = 8 * 2**20


def metric_names(given: Given, where: str) -> dict[str, Metric]:
    """Metrics by name: the key if a dict gives one, else the class without torchmetrics' task prefix.

    A plain function ``(predictions, targets) -> float`` on arrays is a `FunctionMetric` under its own name.

    Args:
        given: One metric or function, a list of them, or a dict.
        where: The argument's key, for the message.

    Raises:
        UserError: If one is not a metric, or two have the same name.

    Example:
        >>> from torchmetrics.classification import MulticlassAccuracy
        >>> list(metric_names(MulticlassAccuracy(3), "metrics.digit"))
        ['Accuracy']
    """
    if isinstance(given, (Mapping, MetricCollection)):
        named = {str(name): as_metric(metric) for name, metric in given.items()}
    else:
        metrics = [as_metric(metric) for metric in (given if isinstance(given, (list, tuple)) else [given])]
        named = {_name(metric): metric for metric in metrics}
        if len(named) < len(metrics):
            names = [_name(metric) for metric in metrics]
            twice = next(name for name in names if names.count(name) > 1)
            raise UserError(where, "metric names must be unique", f"{twice} twice", "Pass a dict by name")
    for name, metric in named.items():
        if not isinstance(metric, Metric):
            raise UserError(f"{where}.{name}", "must be a torchmetrics.Metric", type(metric).__name__)
        if not re.fullmatch(r"\w+", name):
            rule = "a metric's name must have letters, digits and underscores only"
            raise UserError(where, rule, repr(name), "Pass a dict by name, {'name': ...}")
    return named


def _name(metric: Any) -> str:
    if isinstance(metric, FunctionMetric):
        return metric.name
    name = type(metric).__name__
    if type(metric).__module__.startswith("torchmetrics."):
        return re.sub(r"^(Binary|Multiclass|Multilabel)(?=[A-Z])", "", name)
    return name


class StageMetrics(nn.Module):
    """The metrics of one stage, by task.

    A step only keeps its rows; metrics are updated with the rows of many steps at once, when
    values are read or the rows kept exceed 8 MiB. Rows whose shapes differ from those before them,
    and rows that are not tensors, make a separate update. Half precision becomes float32.

    Args:
        metrics: One metric or function on arrays, a list or a dict of them for each task.
        adapter: How a metric is called.

    Raises:
        UserError: If a name cannot be used, or a value is not a metric.

    Example:
        >>> from torchmetrics.classification import MulticlassAccuracy
        >>> metrics = StageMetrics({"digit": MulticlassAccuracy(3, average="micro")})
        >>> metrics.add("digit", None, torch.tensor([0, 1]), torch.tensor([0, 2]), None)
        >>> metrics.compute()
        {'digit/Accuracy': tensor(0.5000)}
    """

    def __init__(self, metrics: Mapping[str, Given], adapter: MetricsAdapter | None = None) -> None:
        super().__init__()
        if metrics:
            check_task_names(metrics, "metrics")
        by_task = {
            task: nn.ModuleDict(
                {f"metric_{name}": m for name, m in metric_names(given, f"metrics.{task}").items()}
            )
            for task, given in metrics.items()
        }
        self.by_task = TaskModules(by_task, "metrics") if by_task else None
        self.adapter = MetricsAdapter() if adapter is None else adapter
        self.rows: dict[str, list[tuple[Any, Any, Any]]] = {task: [] for task in metrics}
        self.bytes = 0
        self.seen: set[str] = set()

    def _metrics(self, task: str) -> Iterator[tuple[str, Metric]]:
        assert self.by_task is not None
        metrics = self.by_task[task]
        assert isinstance(metrics, nn.ModuleDict)
        for name, metric in metrics.items():
            assert isinstance(metric, Metric)
            yield name.removeprefix("metric_"), metric

    def log_keys(self) -> list[str]:
        """``<task>/<Metric>`` for every metric."""
        return [f"{task}/{name}" for task in self.rows for name, _ in self._metrics(task)]

    def entries(self) -> list[str]:
        """``<task>/<Metric>``, with ``_<i>`` for a metric that is known to compute several numbers."""
        return [
            f"{task}/{name}{entry}"
            for task in self.rows
            for name, metric in self._metrics(task)
            for entry in entries(metric)
        ]

    def may_log(self, key: str) -> bool:
        """Whether a metric may compute a number of this name.

        Args:
            key: ``<task>/<Metric>``, with ``_<entry>`` for one number of several.
        """
        return any(
            key.startswith(f"{task}/{name}") and may_log(metric, key.removeprefix(f"{task}/{name}"))
            for task in self.rows
            for name, metric in self._metrics(task)
        )

    def add(self, task: str, inputs: Any, output: Any, target: Any, labelled: Tensor | None) -> None:
        """Keep one step's rows of a task.

        Args:
            task: The task; tasks without metrics are ignored.
            inputs: The model's inputs, kept only if the adapter passes them to metrics.
            output: The task's output.
            target: The task's target.
            labelled: The rows to keep; None for all.
        """
        if task not in self.rows or (labelled is not None and not len(labelled)):
            return
        if not self.adapter.passes_inputs:
            inputs = None
        if labelled is not None:
            inputs, output, target = (take_rows(value, labelled) for value in (inputs, output, target))
        row = _detached(inputs), _detached(output), _detached(target)
        self.rows[task].append(row)
        self.bytes += _bytes(row)
        if self.bytes > _MOST_BYTES:
            self.update()

    def update(self) -> None:
        """Update every metric with the rows kept, and forget these."""
        for task, name, metric, arguments in self._due():
            _call(metric.update, task, name, *arguments)

    def step_values(self) -> dict[str, Tensor]:
        """Update every metric with the rows kept; the values on the last rows of equal shapes."""
        values: dict[str, Tensor] = {}
        with warnings.catch_warnings():
            # A window may lack a class, which says nothing about the run.
            warnings.simplefilter("ignore", UserWarning)
            for task, name, metric, arguments in self._due():
                values |= _flat(f"{task}/{name}", _call(metric.forward, task, name, *arguments))
        return values

    def _due(self) -> Iterator[tuple[str, str, Metric, tuple[list[Any], dict[str, Any]]]]:
        kept, self.rows, self.bytes = self.rows, {task: [] for task in self.rows}, 0
        for task, rows in kept.items():
            for _, fitting in itertools.groupby(rows, key=_shapes):
                self.seen.add(task)
                columns = list(zip(*fitting, strict=True))
                device = next(metric.device for _, metric in self._metrics(task))
                inputs, output, target = (_joined(column, device) for column in columns)
                inputs, output, target = self.adapter.transformed(task, inputs, output, target)
                for name, metric in self._metrics(task):
                    arguments = self.adapter.arguments(inputs, *_fitting(metric, output, target))
                    yield task, name, metric, arguments

    def compute(self, add_up: Callable[[Tensor], Tensor] | None = None) -> dict[str, Tensor]:
        """The values on all rows since the last reset; metrics that saw no row are left out.

        Args:
            add_up: Adds a tensor up over all processes; None if there is one. A metric that has rows in
                one process is computed in all, or they would wait for each other forever.
        """
        self.update()
        tasks = self._with_rows(add_up)
        values: dict[str, Tensor] = {}
        with warnings.catch_warnings():
            if add_up is not None:
                warnings.filterwarnings("ignore", message=".*was called before the ``update`` method.*")
            for task in tasks:
                for name, metric in self._metrics(task):
                    values |= _flat(f"{task}/{name}", _call(metric.compute, task, name, [], {}))
        return values

    def _with_rows(self, add_up: Callable[[Tensor], Tensor] | None) -> list[str]:
        seen = [task in self.seen for task in self.rows]
        if add_up is not None and seen:
            seen = add_up(torch.tensor(seen, dtype=torch.float64)).bool().tolist()
        return [task for task, any_rows in zip(self.rows, seen, strict=True) if any_rows]

    def reset(self) -> None:
        """Forget all rows."""
        self.rows, self.bytes, self.seen = {task: [] for task in self.rows}, 0, set()
        for task in self.rows:
            for _, metric in self._metrics(task):
                metric.reset()

    def epoch_state(self) -> dict[str, Any]:
        """The rows kept and the metrics' states, as plain data and tensors.

        They are not in ``state_dict``, which has the metrics' persistent tensors only.
        """
        states = {
            f"{task}/{name}": {path: _state(part) for path, part in _parts(metric)}
            for task in self.rows
            for name, metric in self._metrics(task)
        }
        rows = {task: list(rows) for task, rows in self.rows.items()}
        return {"rows": rows, "states": states, "seen": sorted(self.seen)}

    def load_epoch_state(self, state: Mapping[str, Any]) -> None:
        """Load a state; metrics that are not in it are reset.

        Args:
            state: What `epoch_state` returned.
        """
        self.reset()
        self.rows = {task: [tuple(row) for row in state["rows"].get(task, [])] for task in self.rows}
        self.bytes = _bytes(self.rows)
        self.seen = set(state["seen"]) & set(self.rows)
        for task in self.rows:
            for name, metric in self._metrics(task):
                states = state["states"].get(f"{task}/{name}", {})
                for path, part in _parts(metric):
                    if path in states:
                        _set_state(part, states[path])


def _parts(metric: Metric) -> Iterator[tuple[str, Metric]]:
    """The metric and those that it wraps."""
    return ((path, part) for path, part in metric.named_modules() if isinstance(part, Metric))


def _state(metric: Metric) -> dict[str, Any]:
    # A copy, since metrics change their states in place.
    return {"count": metric.update_count, "state": _copied(metric.metric_state, None)}


def _set_state(metric: Metric, state: Mapping[str, Any]) -> None:
    for key, value in state["state"].items():
        setattr(metric, key, _copied(value, metric.device))
    set_update_count(metric, state["count"])


def _copied(value: Any, device: torch.device | None) -> Any:
    if isinstance(value, Tensor):
        return value.detach().to(device, copy=True)
    if isinstance(value, Mapping):
        return {key: _copied(entry, device) for key, entry in value.items()}
    return [_copied(entry, device) for entry in value] if isinstance(value, (list, tuple)) else value


def _detached(value: Any) -> Any:
    if isinstance(value, Tensor):
        return value.detach()
    if isinstance(value, dict):
        return {key: _detached(entry) for key, entry in value.items()}
    return type(value)(map(_detached, value)) if type(value) in (list, tuple) else value


def _bytes(value: Any) -> int:
    if isinstance(value, Tensor):
        return value.nbytes
    if isinstance(value, (list, tuple)):
        return sum(map(_bytes, value))
    return sum(map(_bytes, value.values())) if isinstance(value, dict) else sys.getsizeof(value)


def _shapes(value: Any) -> Any:
    """A key that is equal for values that can be joined; only tensors and dicts or tuples of them can be."""
    if isinstance(value, Tensor) and value.ndim:
        return value.shape[1:]
    if isinstance(value, Mapping):
        return [(key, _shapes(entry)) for key, entry in value.items()]
    if isinstance(value, tuple):
        return [_shapes(entry) for entry in value]
    return value if value is None else object()


def _joined(values: Sequence[Any], device: torch.device) -> Any:
    first = values[0]
    if isinstance(first, Tensor):
        joined = torch.cat([value.to(device) for value in values]) if len(values) > 1 else first.to(device)
        return joined.float() if joined.dtype in HALF else joined
    if isinstance(first, Mapping):
        return {key: _joined([value[key] for value in values], device) for key in first}
    if isinstance(first, tuple):
        return tuple(_joined(column, device) for column in zip(*values, strict=True))
    return first


def _fitting(metric: Metric, output: Any, target: Any) -> tuple[Any, Any]:
    """Output and target in the shapes and types that torchmetrics expects, if these are unambiguous."""
    if not isinstance(output, Tensor) or not isinstance(target, Tensor):
        return output, target
    if output.shape == (*target.shape, 1):
        output = output.squeeze(-1)
    elif target.shape == (*output.shape, 1):
        target = target.squeeze(-1)
    elif output.ndim == target.ndim > 1 and target.shape[1] == 1 < output.shape[1]:
        target = target.squeeze(1)
    if target.is_floating_point() and type(metric).__module__.startswith("torchmetrics.classification"):
        whole = target.long()
        target = whole if bool((whole == target).all()) else target
    return output, target


def _call(function: Any, task: str, name: str, positional: list[Any], named: dict[str, Any]) -> Any:
    try:
        return function(*positional, **named)
    except torch.OutOfMemoryError:
        raise
    except (RuntimeError, ValueError, TypeError, IndexError) as error:
        shapes = [
            f"{tuple(x.shape)} {x.dtype}" for x in [*positional, *named.values()] if isinstance(x, Tensor)
        ]
        given = f" on {' and '.join(shapes)}".replace("torch.", "") if shapes else ""
        raise UserError(
            f"metrics.{task}.{name}",
            f"{function.__name__} failed{given}",
            Reason.said(error),
            "Change the metric, or transform its arguments in adapters.metrics",
        ) from error


def _flat(key: str, value: Any) -> dict[str, Tensor]:
    """One entry for each number: dict entries by key, vectors by index."""
    if isinstance(value, Mapping):
        return {k: v for name, entry in value.items() for k, v in _flat(f"{key}_{name}", entry).items()}
    if not isinstance(value, Tensor) and (isinstance(value, bool) or is_number(value)):
        value = torch.tensor(float(value))
    if isinstance(value, Tensor) and value.numel() == 1:
        return {key: value.reshape(())}
    if isinstance(value, Tensor) and value.ndim == 1:
        return {f"{key}_{i}": entry for i, entry in enumerate(value)}
    found = f"shape {tuple(value.shape)}" if isinstance(value, Tensor) else type(value).__name__
    raise UserError(
        f"metrics.{key.replace('/', '.')}",
        "must compute numbers that can be logged: one, a vector or a dict",
        found,
        "Average it, or compute it from the predictions instead",
    )
