"""The metrics of a stage by task, updated with the rows of several steps at once."""

import itertools
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn
from torchmetrics import Metric

from polytask._checks import is_number_or_bool
from polytask._errors import Reason, UserError
from polytask._lightning._metrics import set_update_count
from polytask._lightning._noise import Silence, silenced
from polytask._tasks import TaskModules, check_task_names
from polytask.adapters import MetricsAdapter
from polytask.batch import HALF, Labels, take_rows
from polytask.metrics._functions import FunctionMetric, check_call, takes
from polytask.metrics._keys import entries, may_log
from polytask.metrics._metric_names import TaskMetrics, metric_names
from polytask.metrics._partial_rows import (
    FAILURES,
    Form,
    Gaps,
    form_of,
    honour_ignore_index,
    of_classification,
)
from polytask.metrics._undefined import Undefined, undefined_as_nan

_MOST_BYTES = 8 * 2**20
# Inputs, output and target of rows, where their labels are missing, and further arguments.
KeptRows = tuple[Any, Any, Any, Gaps | None, dict[str, Any]]
Arguments = tuple[list[Any], dict[str, Any]]


class StageMetrics(nn.Module):
    """The metrics of one stage, by task.

    A step only keeps its rows; metrics are updated with the rows of many steps at once, when
    values are read or the rows kept exceed 8 MiB. Rows whose shapes differ from those before them,
    and rows that are not tensors, make a separate update. Half precision becomes float32.

    Args:
        metrics: One metric or function on arrays, a list or a dict of them for each task.
        adapter: How a metric is called.

    Attributes:
        undefined: What the values of the last `compute` are that the labels leave undefined in part or whole.

    Raises:
        UserError: If a name cannot be used, or a value is not a metric.

    Example:
        >>> from torchmetrics.classification import MulticlassAccuracy
        >>> metrics = StageMetrics({"digit": MulticlassAccuracy(3, average="micro")})
        >>> metrics.add("digit", None, torch.tensor([0, 1]), torch.tensor([0, 2]), None)
        >>> metrics.compute()
        {'digit/Accuracy': tensor(0.5000)}
    """

    def __init__(self, metrics: Mapping[str, TaskMetrics], adapter: MetricsAdapter | None = None) -> None:
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
        for task in metrics:
            for _, metric in self._metrics(task):
                honour_ignore_index(metric)
        self.rows: dict[str, list[KeptRows]] = {task: [] for task in metrics}
        self.forms: dict[tuple[Any, ...], Form] = {}
        self.checked: set[tuple[Any, ...]] = set()
        self.undefined: dict[str, str] = {}
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

    def check_arguments(self) -> None:
        """Check that every metric can be called with what the adapter passes.

        Raises:
            UserError: If one lacks an argument, or an argument is of no metric.
        """
        taken: set[str] = set()
        for task in self.rows:
            for name, metric in self._metrics(task):
                own = [key for key in self.adapter.batch_arguments if takes(metric, key)]
                taken.update(own)
                positional, named = self.adapter.arguments(None, None, None)
                try:
                    check_call(metric, positional, named | dict.fromkeys(own))
                except TypeError as error:
                    raise UserError(
                        f"metrics.{task}.{name}",
                        f"{type(metric).__name__} must be callable as adapters.metrics says",
                        Reason.said(error),
                        "Name its arguments there, and further parts of the batch in batch_arguments",
                    ) from error
        for key in self.adapter.batch_arguments:
            if key not in taken and self.rows:
                rule = "must be an argument of a metric"
                raise UserError(f"adapters.metrics.batch_arguments.{key}", rule, "an argument of none")

    def add(
        self,
        task: str,
        inputs: Any,
        output: Any,
        target: Any,
        labels: Labels | None,
        columns: Mapping[str, Any] | None = None,
    ) -> None:
        """Keep one step's rows of a task, apart from those without any label.

        Args:
            task: The task; tasks without metrics are ignored.
            inputs: The model's inputs, kept only if the adapter passes them to metrics.
            output: The task's output.
            target: The task's target.
            labels: Which elements of the target have a label; None for all.
            columns: Further arguments of metrics, by keyword.

        Raises:
            UserError: If rows lack some of their labels, and a metric cannot leave out single elements.
        """
        if task not in self.rows or (labels is not None and not len(labels.rows)):
            return
        if not self.adapter.passes_inputs:
            inputs = None
        gaps = None
        own = dict(columns or {})
        if labels is not None:
            if len(labels.rows) < len(target):
                inputs, output, target, own = (
                    take_rows(value, labels.rows) for value in (inputs, output, target, own)
                )
            gaps = Gaps.of(target, labels)
        row = _detached(inputs), _detached(output), _detached(target), gaps, _detached(own)
        if gaps is not None:
            self._check_gaps(task, row)
        self.rows[task].append(row)
        self.bytes += _bytes(row)
        if self.bytes > _MOST_BYTES:
            self.update()

    def _check_gaps(self, task: str, row: KeptRows) -> None:
        """Raise at once if a metric cannot leave out these gaps."""
        _, output, target, gaps, _ = row
        assert gaps is not None
        kind = (task, output.ndim if isinstance(output, Tensor) else None, target.ndim, *gaps.kind)
        if kind not in self.checked:
            self.checked.add(kind)
            for _ in self._arguments(task, [row]):
                pass

    def update(self) -> None:
        """Update every metric with the rows kept, and forget these."""
        for task, name, metric, arguments in self._due():
            _call(metric.update, task, name, *arguments)

    def step_values(self) -> dict[str, Tensor]:
        """Update every metric with the rows kept; the values on the last rows of equal shapes."""
        values: dict[str, Tensor] = {}
        with silenced(Silence.FEW_ROWS):
            for task, name, metric, arguments in self._due():
                with undefined_as_nan(metric):
                    values |= _flat(f"{task}/{name}", _call(metric.forward, task, name, *arguments))
        return values

    def _due(self) -> Iterator[tuple[str, str, Metric, Arguments]]:
        kept, self.rows, self.bytes = self.rows, {task: [] for task in self.rows}, 0
        for task, rows in kept.items():
            for _, fitting in itertools.groupby(rows, key=_shapes):
                self.seen.add(task)
                yield from self._arguments(task, list(fitting))

    def _arguments(self, task: str, rows: Sequence[KeptRows]) -> Iterator[tuple[str, str, Metric, Arguments]]:
        """Every metric of a task with its arguments for rows of equal shapes."""
        columns = list(zip(*rows, strict=True))
        device = next(metric.device for _, metric in self._metrics(task))
        inputs, output, target, gaps, further = (_joined(column, device) for column in columns)
        inputs, output, target = self.adapter.transformed(task, inputs, output, target)
        output, target = _aligned(output, target)
        for name, metric in self._metrics(task):
            own_output, own_target = output, target
            own = {key: column for key, column in further.items() if takes(metric, key)}
            # A function gets all rows at once, so that those with and without a gap have one form.
            joint = isinstance(metric, FunctionMetric) and isinstance(target, Tensor) and target.ndim > 1
            if gaps is not None or joint:
                fitted = None if gaps is None else _fitted(gaps, target)
                form = self._form(task, name, metric, inputs, output, target, fitted, joint, own)
                own_output, own_target = form(output, target, fitted)
                own = {key: form.of_column(column, target, fitted) for key, column in own.items()}
            positional, named = self.adapter.arguments(inputs, own_output, _typed(metric, own_target))
            yield task, name, metric, (positional, named | own)

    def _form(
        self,
        task: str,
        name: str,
        metric: Metric,
        inputs: Any,
        output: Any,
        target: Any,
        gaps: Gaps | None,
        joint: bool,
        columns: Mapping[str, Any],
    ) -> Form:
        kind = () if gaps is None or joint else gaps.kind
        key = (task, name, output.ndim if isinstance(output, Tensor) else None, target.ndim, *kind)
        if key not in self.forms or (gaps is not None and not self.forms[key].fits(gaps)):

            def call(fresh: Metric, own_output: Any, own_target: Any) -> None:
                positional, named = self.adapter.arguments(inputs, own_output, _typed(metric, own_target))
                # Values do not matter here: they only have to be some for each row.
                ones = {
                    key: column.new_ones(
                        own_target.shape if column.shape == target.shape else len(own_target)
                    )
                    for key, column in columns.items()
                }
                fresh.update(*positional, **named, **ones)

            with silenced(Silence.FEW_ROWS):
                self.forms[key] = form_of(metric, output, target, gaps, call, f"metrics.{task}.{name}")
        return self.forms[key]

    def compute(self, add_up: Callable[[Tensor], Tensor] | None = None) -> dict[str, Tensor]:
        """The values on all rows since the last reset; metrics that saw no row are left out.

        A value that the labels leave undefined is NaN, and left out of a metric's own mean over classes,
        labels or outputs; ``undefined`` says so.

        Args:
            add_up: Adds a tensor up over all processes; None if there is one. A metric that has rows in
                one process is computed in all, or they would wait for each other forever.
        """
        self.update()
        tasks = self._with_rows(add_up)
        values: dict[str, Tensor] = {}
        self.undefined = {}
        with nullcontext() if add_up is None else silenced(Silence.EPOCH_METRICS):
            for task in tasks:
                for name, metric in self._metrics(task):
                    key = f"{task}/{name}"
                    with undefined_as_nan(metric) as found:
                        own = _flat(key, _call(metric.compute, task, name, [], {}))
                    self.undefined |= _undefined(key, own, found)
                    values |= own
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
        rows = {task: [_plain(row) for row in rows] for task, rows in self.rows.items()}
        return {"rows": rows, "states": states, "seen": sorted(self.seen)}

    def load_epoch_state(self, state: Mapping[str, Any]) -> None:
        """Load a state; metrics that are not in it are reset.

        Args:
            state: What `epoch_state` returned.
        """
        self.reset()
        self.rows = {task: [_row(*row) for row in state["rows"].get(task, [])] for task in self.rows}
        self.bytes = _bytes(self.rows)
        self.seen = set(state["seen"]) & set(self.rows)
        for task in self.rows:
            for name, metric in self._metrics(task):
                states = state["states"].get(f"{task}/{name}", {})
                for path, part in _parts(metric):
                    if path in states:
                        _set_state(part, states[path])


def _plain(row: KeptRows) -> tuple[Any, ...]:
    inputs, output, target, gaps, columns = row
    return inputs, output, target, gaps and (gaps.present, gaps.depth, gaps.by_class), columns


def _row(
    inputs: Any,
    output: Any,
    target: Any,
    gaps: tuple[Any, ...] | None = None,
    columns: Mapping[str, Any] | None = None,
) -> KeptRows:
    """A row as it was saved; former checkpoints have no gaps and no further arguments."""
    return inputs, output, target, None if gaps is None else Gaps(*gaps), dict(columns or {})


def _undefined(key: str, values: Mapping[str, Tensor], found: Sequence[Undefined]) -> dict[str, str]:
    """What is undefined in the values of one metric."""
    means = [str(note) for note in found if note.defined]
    reasons = [str(note) for note in found if not note.defined] or ["NaN"]
    undefined = {name: reasons[0] for name, value in values.items() if bool(value.isnan())}
    return {key: means[0], **undefined} if means else undefined


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
    if isinstance(value, Gaps):
        return value.present.nbytes
    return sum(map(_bytes, value.values())) if isinstance(value, dict) else sys.getsizeof(value)


def _shapes(value: Any) -> Any:
    """A key that is equal for values that can be joined; only tensors and dicts or tuples of them can be."""
    if isinstance(value, Tensor) and value.ndim:
        return value.shape[1:]
    if isinstance(value, Gaps):
        return value.present.shape[1:], value.kind
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
    if isinstance(first, Gaps):
        return replace(first, present=_joined([gaps.present for gaps in values], device))
    if isinstance(first, Mapping):
        return {key: _joined([value[key] for value in values], device) for key in first}
    if isinstance(first, tuple):
        return tuple(_joined(column, device) for column in zip(*values, strict=True))
    return first


def _aligned(output: Any, target: Any) -> tuple[Any, Any]:
    """Output and target in the shapes that torchmetrics expects, if these are unambiguous."""
    if not isinstance(output, Tensor) or not isinstance(target, Tensor):
        return output, target
    if output.shape == (*target.shape, 1):
        return output.squeeze(-1), target
    if target.shape == (*output.shape, 1):
        return output, target.squeeze(-1)
    if output.ndim == target.ndim > 1 and target.shape[1] == 1 < output.shape[1]:
        return output, target.squeeze(1)
    return output, target


def _typed(metric: Metric, target: Any) -> Any:
    """Labels that are stored as floating point numbers as integers, for metrics of a classification."""
    if not (isinstance(target, Tensor) and target.is_floating_point() and of_classification(metric)):
        return target
    whole = target.long()
    return whole if bool((whole == target).all()) else target


def _fitted(gaps: Gaps, target: Any) -> Gaps:
    shape = target.shape if isinstance(target, Tensor) else torch.Size()
    fitted = gaps.shaped(shape)
    if fitted is None:
        raise UserError(
            "adapters.metrics.target_transforms",
            "must keep the elements of a target that lacks some labels",
            f"shape {tuple(shape)} for a target of shape {tuple(gaps.present.shape)}",
        )
    return fitted


def _call(function: Any, task: str, name: str, positional: list[Any], named: dict[str, Any]) -> Any:
    try:
        return function(*positional, **named)
    except torch.OutOfMemoryError:
        raise
    except FAILURES as error:
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
    if not isinstance(value, Tensor) and is_number_or_bool(value):
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
