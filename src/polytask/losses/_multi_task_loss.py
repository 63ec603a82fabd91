"""One criterion for many tasks: a loss for each task, missing labels left out, and a weighting."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Literal

import torch
from torch import Tensor, nn

from polytask._errors import UserError
from polytask._tasks import TaskModules, check_task_names
from polytask.losses._combination import LossCombination
from polytask.losses._loss_weights import loss_weights_of
from polytask.losses._measurement import LossMeasurement
from polytask.weighting import Equal, Weighting


class MultiTaskLoss(nn.Module):
    r"""A loss for each task and a weighting that combines them into one scalar.

    With the losses :math:`L_i`, the mean (or sum) over the labelled elements of task *i*, and the
    loss weights :math:`c_i`, the total is :math:`W(c_1 L_1, \dots, c_T L_T)`; with the weighting
    `Equal` it is :math:`\sum_i c_i L_i`.

    A label is missing if the target is NaN (floating point) or equals the loss's ``ignore_index``
    (integers; -100 if the loss has none). A task without any label in a batch, or whose key is not in
    the targets, takes no part in that step.

    Losses with a ``reduction`` (all of torch) are masked element by element. Any other loss is
    called on the labelled rows and may return their mean or one value for each row. A loss with one
    value for a whole row requires each row to be labelled entirely, or not at all.

    With a weighting that requires gradients the total is :math:`\sum_i c_i L_i`, for evaluation and logs;
    training requires an engine that gives the weighting the tasks' gradients.

    A subclass may override `forward` (how the losses become a total), `compute_task_losses` (what the
    losses are) or `get_task_weights` (which weights are reported), in a config, a `polytask.System`, a
    `polytask.trainer.MultiTaskTrainer` and a loop of its own alike.

    Args:
        task_losses: A loss module for each task; or one module that serves every task, whose names
            are then given by ``tasks`` or taken from the model.
        loss_weights: Factors :math:`c_i`, no unit, default 1; never normalised.
        reduction: How a task's labelled elements combine: ``mean`` or ``sum``.
        weighting: How the tasks combine; `Equal` by default.
        tasks: Task names, if ``task_losses`` is a single module.

    Shape:
        - outputs: by task, ``(rows, ...)`` as the task's loss takes them; or a list in task order.
        - targets: by task, ``(rows, ...)``; or a list in task order.
        - returns: ``()``, or ``()`` and a dict of ``()`` by task.

    Raises:
        UserError: If a name, weight or reduction is invalid, or shapes do not fit.

    Example:
        >>> criterion = MultiTaskLoss({"digit": nn.CrossEntropyLoss(), "height": nn.MSELoss()})
        >>> outputs = {"digit": torch.zeros(2, 10), "height": torch.tensor([[1.0], [3.0]])}
        >>> targets = {"digit": torch.tensor([3, -100]), "height": torch.tensor([1.0, 2.0])}
        >>> total, losses = criterion(outputs, targets, return_dict=True)
        >>> {task: round(loss.item(), 4) for task, loss in losses.items()}
        {'digit': 2.3026, 'height': 0.5}

    Attributes:
        names: All tasks, in order; empty as long as a single loss has no tasks.
        reduction: As given.
        weighting: As given, or `Equal`.
        measurement: Computes the losses by task, with their counts; for `polytask.System` and other loops.
        combination: Applies ``loss_weights`` and the weighting; likewise.

    Deviations:
        A loss's own ``reduction`` of ``mean`` or ``none`` is replaced by this criterion's, and ``batchmean``
        by ``sum``. Losses of half precision are summed in float32.
    """

    def __init__(
        self,
        task_losses: Mapping[str, nn.Module] | nn.Module,
        loss_weights: Mapping[str, float] | Sequence[float] | None = None,
        reduction: Literal["mean", "sum"] = "mean",
        *,
        weighting: Weighting | None = None,
        tasks: Sequence[str] | None = None,
    ) -> None:
        super().__init__()
        if reduction not in ("mean", "sum"):
            raise UserError("reduction", "must be 'mean' or 'sum'", repr(reduction))
        if weighting is not None and not isinstance(weighting, Weighting):
            raise UserError("weighting", "must be one of polytask.weighting", type(weighting).__name__)
        self.reduction = reduction
        self.weighting = Equal() if weighting is None else weighting
        self.names: tuple[str, ...] = ()
        self.measurement = LossMeasurement(reduction)
        own_total = type(self).forward is MultiTaskLoss.forward
        self.combination = LossCombination(self.weighting, self.measurement, own_total)
        self._weights_given = loss_weights
        self._loss_weights: dict[str, float] = {}
        self._forwards = 0
        # The losses within a call of a subclass's forward, with their graphs; None outside of it.
        self._called_with: dict[str, Tensor] | None = None
        if self.weighting.gradients is not None:
            self.register_forward_hook(self._refuse_plain_backward)
        elif not own_total:
            self.register_forward_pre_hook(self._begin_call)
            self.register_forward_hook(self._derive_weights, always_call=True)
        # In a tuple, so that it is no submodule until it is stored by task.
        self._single: Sequence[nn.Module] = (task_losses,) if isinstance(task_losses, nn.Module) else ()
        if isinstance(task_losses, Mapping):
            if tasks is not None and tuple(tasks) != tuple(task_losses):
                raise UserError("tasks", "must be None unless task_losses is a single loss", list(tasks))
            self._setup(task_losses, task_losses)
        elif not self._single:
            raise UserError(
                "task_losses",
                "must be a loss module, or a mapping from task to loss module",
                type(task_losses).__name__,
            )
        elif tasks is not None:
            self.setup(tasks)

    @property
    def loss_weights(self) -> dict[str, float]:
        """The factors of the tasks' losses, 1 by default; empty as long as the tasks have no names."""
        return dict(self._loss_weights)

    def setup(self, names: Iterable[str]) -> None:
        """Name the tasks of a single loss; losses and per-task state exist from then on.

        Args:
            names: All tasks, in order.

        Raises:
            UserError: If the tasks are named already, or a name is no valid task name.
        """
        if self.names:
            raise UserError("tasks", "must be named once", f"tasks {', '.join(self.names)} already")
        names = check_task_names(names, "task_losses")
        self._setup(names, dict.fromkeys(names, self._single[0]))

    def _setup(self, names: Iterable[str], losses: Mapping[str, nn.Module]) -> None:
        names = check_task_names(names, "task_losses")
        self.task_losses = TaskModules(losses, "task_losses")
        self.measurement.setup(names, losses)
        self._single = ()
        self.names = names
        self._loss_weights = loss_weights_of(self._weights_given, names)
        self.combination.set_factors(None if self._weights_given is None else self._loss_weights)
        self.weighting.setup(names)

    def forward(
        self, outputs: Any, targets: Any, return_dict: bool = False
    ) -> Tensor | tuple[Tensor, dict[str, Tensor]]:
        """The total, or the total and the losses by task.

        Args:
            outputs: The model's outputs by task, or in task order.
            targets: The targets by task, or in task order.
            return_dict: Whether the losses by task are returned too.

        Raises:
            UserError: If no task has a label, or shapes do not fit; at the second training step of
                a weighting that requires gradients and was not given them.
        """
        before = self.measurement.latest
        losses = self.compute_task_losses(outputs, targets)
        if type(self).compute_task_losses is not MultiTaskLoss.compute_task_losses:
            self.measurement.replace_latest(losses, before, type(self).__name__, self.training)
        total = self._total(losses)
        return (total, losses) if return_dict else total

    def _total(self, losses: Mapping[str, Tensor]) -> Tensor:
        names = tuple(name for name in self.names if name in losses)
        if not names:
            if self.measurement.ranks is None or not self.training:
                raise UserError("targets", "must have a label of at least one task", "none in this batch")
            return torch.zeros(())
        return self.combination.total(torch.stack([losses[name].reshape(()) for name in names]), names)

    def compute_task_losses(self, outputs: Any, targets: Any) -> dict[str, Tensor]:
        """The loss of each present task, before ``loss_weights``.

        Args:
            outputs: The model's outputs by task, or in task order.
            targets: The targets by task, or in task order.

        Returns:
            A scalar for each task that has a label in the batch; on several ranks, on any of them.

        Raises:
            UserError: If an output is missing, or shapes do not fit.
        """
        if not self.names:
            self._setup_from(outputs)
        measured = self.measurement.measure(outputs, targets, self.training)
        losses = dict(zip(measured.names, measured.means.unbind(), strict=True))
        if self._called_with is not None:
            self._called_with = losses
        return losses

    def _setup_from(self, outputs: Any) -> None:
        """Name the tasks of a single loss by the first outputs, outside a System."""
        number = 1 if isinstance(outputs, Tensor) else len(outputs)
        self.setup(outputs if isinstance(outputs, Mapping) else [f"task{i}" for i in range(number)])
        if next(self.weighting.parameters(), None) is not None:
            raise UserError(
                "tasks",
                f"is required with {type(self.weighting).__name__}, which has parameters to train",
                None,
                f"Pass tasks={list(self.names)}",
            )

    def get_task_weights(self) -> dict[str, float]:
        """The effective weight of each task at its last loss in training, d total / d loss.

        A validation, without gradients or in evaluation mode, changes nothing. Tasks that were absent from
        the last batch are left out. Before the first batch, the losses count as 1. If the weighting requires
        gradients, the weights are those of its last step, or 1 before the first step. If it aggregates the
        Jacobian, the weights are those of the tasks' own parameters. If a subclass overrides `forward`, the
        weights are derived from the total that its last call in training returned, and the losses; if that
        is not possible, there are none.

        These are the weights that logs and records show. An override changes what is shown; the total
        is made by `forward`.

        Example:
            >>> losses = {"a": nn.MSELoss(), "b": nn.MSELoss()}
            >>> MultiTaskLoss(losses, loss_weights={"b": 0.5}).get_task_weights()
            {'a': 1.0, 'b': 0.5}
        """
        names, _, weights = self.combination.own_and_effective_weights()
        return dict(zip(names, weights.tolist(), strict=True))

    def _begin_call(self, criterion: nn.Module, given: Any) -> None:
        self._called_with = {}

    def _derive_weights(self, criterion: nn.Module, given: Any, result: Any) -> None:
        losses, self._called_with = self._called_with or {}, None
        if not (self.training and torch.is_grad_enabled()):
            return
        total = result
        if isinstance(result, tuple):
            total, losses = result
        elif type(self).compute_task_losses is not MultiTaskLoss.compute_task_losses:
            # It is not known what an override made of the losses above.
            losses = {}
        if isinstance(total, Tensor) and total.requires_grad:
            self.combination.derive_weights(
                total, {name: losses[name] for name in self.names if name in losses}
            )

    def _refuse_plain_backward(self, criterion: nn.Module, given: Any, result: Any) -> None:
        # A hook, so that it holds for a subclass's own forward too. In the first step it is not known yet
        # whether the gradients will be requested.
        weighting = self.weighting
        if weighting.deferred or self.combination.used or not (self.training and torch.is_grad_enabled()):
            return
        if self._forwards:
            raise UserError(
                "weighting",
                f"{type(weighting).__name__} requires gradients of the {weighting.gradients} by task, "
                "which a backward of the total does not give",
                "a second step without them",
                "Call backward of a polytask.gradients.Engine on the losses by task",
            )
        self._forwards += 1

    def extra_repr(self) -> str:
        """Reduction and loss weights."""
        if not self.names or self._weights_given is None:
            return f"reduction={self.reduction}"
        return f"reduction={self.reduction}, loss_weights={self._loss_weights}"
