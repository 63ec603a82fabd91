"""Metrics and losses of several tasks over many batches, for a training loop without a `System`."""

from collections.abc import Mapping, Sequence
from typing import Any

import torch

from polytask._errors import UserError
from polytask._tasks import check_known, check_task_names
from polytask.adapters import BatchAdapter
from polytask.data._tensors import as_tensors
from polytask.metrics._loss_meter import LossMeter
from polytask.metrics._stage_metrics import StageMetrics


class MultiTaskMetrics:
    """Metrics and mean losses of several tasks, over all rows since the last reset.

    A label is missing if the target is NaN (floating point) or -100 (integers); a task's metrics
    leave out the elements without a label. A task that is not among the targets is left out of the update.

    Args:
        task_names: All tasks.
        metric_fns: For each task a function ``(predictions, targets) -> float`` on arrays, or a torchmetrics
            metric; or a list or a dict of them.

    Raises:
        UserError: If a task name cannot be used, or a value is not a metric.

    Example:
        >>> from polytask.metrics import accuracy
        >>> metrics = MultiTaskMetrics(["digit", "height"], {"digit": accuracy})
        >>> outputs = {"digit": torch.tensor([[2.0, 1.0], [0.0, 3.0]]), "height": torch.zeros(2, 1)}
        >>> targets = {"digit": torch.tensor([0, 0]), "height": torch.ones(2)}
        >>> metrics.update(outputs, targets, {"digit": 1.5, "height": 1.0})
        >>> metrics.compute()
        {'loss/digit': 1.5, 'loss/height': 1.0, 'loss/total': 2.5, 'digit/accuracy': 0.5}
        >>> metrics.compute_task_metric("digit")
        0.5
    """

    def __init__(self, task_names: Sequence[str], metric_fns: Mapping[str, Any] | None = None) -> None:
        self.task_names = check_task_names(task_names, "task_names")
        check_known(metric_fns or {}, self.task_names, "metric_fns")
        self._metrics = StageMetrics(metric_fns or {})
        self._adapter = BatchAdapter()
        self._meter = LossMeter(self.task_names)

    def update(
        self,
        predictions: Mapping[str, Any],
        targets: Mapping[str, Any],
        losses: Mapping[str, Any] | None = None,
    ) -> None:
        """Keep one batch.

        Args:
            predictions: The model's outputs by task, arrays or tensors.
            targets: The targets by task.
            losses: The batch's mean losses by task, and ``total``, their sum if not given.

        Raises:
            UserError: If a task is unknown, a prediction is missing, or numbers of rows differ.
        """
        outputs, known = as_tensors(predictions, "predictions"), as_tensors(targets, "targets")
        check_known(outputs, self.task_names, "predictions")
        check_known(known, self.task_names, "targets")
        batch = self._adapter((outputs, known), self.task_names)
        for task, target in batch.targets.items():
            self._check_rows(task, outputs.get(task), target)
            self._metrics.add(task, None, outputs[task], target, batch.targets.partial.get(task))
        if losses is not None:
            check_known(losses, (*self.task_names, "total"), "losses")
            self._add_losses(losses, batch.targets.counts, batch.size)

    def _check_rows(self, task: str, output: Any, target: Any) -> None:
        if output is None:
            raise UserError(f"task '{task}'", "predictions are required for its targets", "none")
        if output.shape[:1] != target.shape[:1]:
            found = f"predictions {tuple(output.shape)} and targets {tuple(target.shape)}"
            raise UserError(f"task '{task}'", "must have one prediction for each target", found)

    def _add_losses(self, losses: Mapping[str, Any], counts: Mapping[str, int], size: int) -> None:
        values = {name: torch.as_tensor(loss, dtype=torch.float32) for name, loss in losses.items()}
        total = values.pop("total", None)
        whole = torch.stack(list(values.values())).sum() if total is None else total
        self._meter.add(values, whole, counts, size, 0)

    def compute(self) -> dict[str, float]:
        """``loss/<task>`` and ``<task>/<metric>`` for the tasks that had rows.

        A task's loss is the mean over its labelled elements, the total that over the rows.
        """
        losses = {f"loss/{name}": loss for name, loss in self._meter.epoch().items()}
        return losses | {key: float(value) for key, value in self._metrics.compute().items()}

    def compute_task_metric(self, task: str) -> float | dict[str, float]:
        """The value of a task's metric; a dict by name if it has several.

        Args:
            task: The task.

        Raises:
            UserError: If the task is unknown, has no metric, or had no row.
        """
        check_known([task], self.task_names, "compute_task_metric")
        if task not in self._metrics.rows:
            raise UserError(f"task '{task}'", "must have a metric", "none", "Add one to metric_fns")
        values = {
            key.removeprefix(f"{task}/"): float(value)
            for key, value in self._metrics.compute().items()
            if key.startswith(f"{task}/")
        }
        if not values:
            raise UserError(f"task '{task}'", "must have a row for its metric", "none since the last reset")
        return values if len(values) > 1 else next(iter(values.values()))

    def reset(self) -> None:
        """Forget all rows and losses."""
        self._meter.reset()
        self._metrics.reset()
