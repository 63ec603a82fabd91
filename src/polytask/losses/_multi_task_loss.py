"""One criterion for many tasks: a loss per task, missing labels left out, a weighting on top."""

import itertools
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any, Literal

import torch
from torch import Tensor, nn

from polytask._distributed import Ranks
from polytask._errors import UserError, hint
from polytask._tasks import SHARING, TaskModules, check_known, check_task_names
from polytask.batch import HALF, Targets
from polytask.losses._loss_weights import loss_weights_of
from polytask.losses._masked_loss import Term
from polytask.losses._task_losses import TaskLosses
from polytask.weighting import Equal, GramianWeighting, JacobianAggregator, LossWeighting, Weighting


class MultiTaskLoss(nn.Module):
    r"""A loss for each task and a weighting that makes one scalar of them.

    With the losses :math:`L_i`, the mean (or sum) over the labelled elements of task *i*, and the
    loss weights :math:`c_i`, the total is :math:`W(c_1 L_1, \dots, c_T L_T)`; with the weighting
    `Equal` it is :math:`\sum_i c_i L_i`.

    A label is missing where the target is NaN (floating point) or equals the loss's
    ``ignore_index`` (integers; -100 where the loss has none). A task without any label in a batch,
    or whose key is not in the targets, takes no part in that step.

    Losses with a ``reduction`` (all of torch) are masked element by element. Any other loss is
    called on the labelled rows and may return their mean or one value for each row. A loss with one
    value for a whole row takes rows that are labelled throughout, or not at all.

    With a weighting that needs gradients the total is :math:`\sum_i c_i L_i`, for evaluation and logs;
    its own way of combining the tasks needs an engine that gives it their gradients.

    Args:
        task_losses: A loss module for each task; or one module that serves every task, whose names
            are then given by ``tasks`` or taken from the model.
        loss_weights: Factors :math:`c_i`, no unit, default 1; never normalised.
        reduction: How a task's labelled elements combine: ``mean`` or ``sum``.
        weighting: How the tasks combine; `Equal` by default.
        tasks: Task names, where ``task_losses`` is a single module.

    Shape:
        - outputs: by task, ``(rows, ...)`` as the task's loss takes them; or a list in task order.
        - targets: by task, ``(rows, ...)``; or a list in task order.
        - returns: ``()``, or ``()`` and a dict of ``()`` by task.

    Raises:
        UserError: Where a name, weight or reduction cannot be used, or shapes do not fit.

    Example:
        >>> criterion = MultiTaskLoss({"digit": nn.CrossEntropyLoss(), "height": nn.MSELoss()})
        >>> outputs = {"digit": torch.zeros(2, 10), "height": torch.tensor([[1.0], [3.0]])}
        >>> targets = {"digit": torch.tensor([3, -100]), "height": torch.tensor([1.0, 2.0])}
        >>> total, losses = criterion(outputs, targets, return_dict=True)
        >>> {task: round(loss.item(), 4) for task, loss in losses.items()}
        {'digit': 2.3026, 'height': 0.5}

    Attributes:
        last: The losses of the last batch, without gradient; None before the first.
        ranks: The processes that train together, set by `polytask.System`: in training, losses are then
            those of the joined batch, and a task is present where any rank has a label of it.

    Deviations:
        A loss's own ``reduction`` of ``mean`` or ``none`` gives way to this criterion's, ``batchmean``
        gives way to ``sum``. Losses of half precision are summed in float32.
    """

    factors: Tensor | None

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
            raise UserError("reduction", "is 'mean' or 'sum'", repr(reduction))
        if weighting is not None and not isinstance(weighting, Weighting):
            raise UserError("weighting", "is one of polytask.weighting", type(weighting).__name__)
        self.reduction = reduction
        self.weighting = Equal() if weighting is None else weighting
        self.names: tuple[str, ...] = ()
        self._weights_given = loss_weights
        self.last: TaskLosses | None = None
        self.ranks: Ranks | None = None
        self._used: tuple[tuple[str, ...], Tensor] | None = None
        self._forwards = 0
        self._divisors: tuple[tuple[Any, ...], Tensor] | None = None
        if self.weighting.gradients is not None:
            self.weighting.register_forward_hook(self._keep_weights, with_kwargs=True)
        # In a tuple, so that it is no submodule until it is stored by task.
        self._single: Sequence[nn.Module] = (task_losses,) if isinstance(task_losses, nn.Module) else ()
        if isinstance(task_losses, Mapping):
            if tasks is not None and tuple(tasks) != tuple(task_losses):
                raise UserError("tasks", "is for a single loss that serves all tasks", list(tasks))
            self.setup(task_losses, task_losses)
        elif not self._single:
            raise UserError(
                "task_losses", "is a loss module, or a mapping from task to one", type(task_losses).__name__
            )
        elif tasks is not None:
            self.setup(tasks)

    def setup(self, names: Iterable[str], losses: Mapping[str, nn.Module] | None = None) -> None:
        """Name the tasks of a single loss; losses and per-task state exist from here on.

        Args:
            names: All tasks, in order.
            losses: A loss for each; the single loss where not given.

        Raises:
            UserError: Where the tasks are named already, or a name may not name a task.
        """
        if self.names:
            raise UserError("tasks", "are named once", ", ".join(self.names))
        names = check_task_names(names, "task_losses")
        if losses is None:
            losses = dict.fromkeys(names, self._single[0])
        self.task_losses = TaskModules(losses, "task_losses")
        self._terms = {name: Term(name, loss) for name, loss in losses.items()}
        self._single = ()
        self._refuse_sums()
        self.names = names
        factors = loss_weights_of(self._weights_given, names)
        self.register_buffer("factors", factors, persistent=False)
        self.weighting.setup(names)

    def _refuse_sums(self) -> None:
        for name, term in self._terms.items():
            if self.reduction == "mean" and term.reduction == "sum":
                raise UserError(
                    f"task_losses.{name}",
                    "a loss that sums does not go with a criterion that takes means",
                    "reduction='sum'",
                    "Set reduction='sum' on the MultiTaskLoss, or scale the task by loss_weights",
                )

    def forward(
        self, outputs: Any, targets: Any, return_dict: bool = False
    ) -> Tensor | tuple[Tensor, dict[str, Tensor]]:
        """The total, or the total and the losses by task.

        Args:
            outputs: The model's outputs by task, or in task order.
            targets: The targets by task, or in task order.
            return_dict: Whether the losses by task are returned too.

        Raises:
            UserError: Where no task has a label, or shapes do not fit; at the second training step of
                a weighting that was never given the gradients it needs.
        """
        losses = self.measure(outputs, targets)
        if not losses.names and not self._joins:
            raise UserError("targets", "one task at least needs a label", "none in this batch")
        if not losses.names:
            return (losses.sums.sum(), {}) if return_dict else losses.sums.sum()
        self._refuse_plain_backward()
        means = losses.means
        total = self.combine(means, losses.names)
        return (total, _by_task(losses.names, means)) if return_dict else total

    def compute_task_losses(self, outputs: Any, targets: Any) -> dict[str, Tensor]:
        """The loss of each present task, before ``loss_weights``.

        Args:
            outputs: The model's outputs by task, or in task order.
            targets: The targets by task, or in task order.

        Raises:
            UserError: Where an output is missing, or shapes do not fit.
        """
        losses = self.measure(outputs, targets)
        return _by_task(losses.names, losses.means)

    def measure(self, outputs: Any, targets: Any) -> TaskLosses:
        """Sums and counts of the present tasks' losses.

        Args:
            outputs: The model's outputs by task, or in task order.
            targets: The targets by task, or in task order.

        Raises:
            UserError: Where an output is missing, or shapes do not fit.
        """
        if not self.names:
            self._setup_from(outputs)
        outputs, targets = self._named(outputs, "outputs"), self._named(targets, "targets")
        if not isinstance(targets, Targets):
            check_known(targets, self.names, "targets")
            targets = Targets.count(targets, self.ignore_index)
        here = tuple(name for name in self.names if name in targets)
        names, sums, counts = here, [], []
        for name in here:
            if name not in outputs:
                raise UserError(
                    f"task '{name}'", "needs an output of the model", None, hint(name, outputs, "Outputs")
                )
            value, count = self._terms[name](
                outputs[name], targets[name], targets.counts[name], targets.partial.get(name)
            )
            sums.append(value.float() if value.dtype in HALF else value)
            counts.append(count)
        if self.ranks is not None and self._joins:
            names, sums, counts = self.ranks.join(self.names, here, sums, counts)
        if not names:
            return TaskLosses((), torch.zeros(0), torch.zeros(0))
        stacked = torch.stack(sums)
        if self.reduction == "sum":
            counts = [1.0] * len(names)
        losses = TaskLosses(names, stacked, self._divisor(counts, stacked), here)
        self.last = replace(losses, sums=stacked.detach())
        return losses

    @property
    def _joins(self) -> bool:
        return self.ranks is not None and self.training

    def _setup_from(self, outputs: Any) -> None:
        """Name the tasks of a single loss by the first outputs, outside a System."""
        number = 1 if isinstance(outputs, Tensor) else len(outputs)
        self.setup(outputs if isinstance(outputs, Mapping) else [f"task{i}" for i in range(number)])
        if next(self.weighting.parameters(), None) is not None:
            raise UserError(
                "tasks",
                f"have to be named for {type(self.weighting).__name__}, which has parameters to train",
                None,
                f"Pass tasks={list(self.names)}",
            )

    def _named(self, values: Any, where: str) -> Mapping[str, Any]:
        if isinstance(values, Mapping):
            return values
        if isinstance(values, Tensor) and len(self.names) == 1:
            values = [values]
        if not isinstance(values, (list, tuple)):
            raise UserError(
                where,
                f"are a dict by task, or a list in the order {', '.join(self.names)}",
                type(values).__name__,
            )
        if len(values) != len(self.names):
            raise UserError(
                where,
                f"need one entry for each of the tasks {', '.join(self.names)}",
                f"{len(values)} entries",
            )
        return dict(zip(self.names, values, strict=True))

    def _divisor(self, counts: list[float | Tensor], like: Tensor) -> Tensor:
        if any(isinstance(count, Tensor) for count in counts):
            return torch.stack([like.new_full((), n) if isinstance(n, float) else n.to(like) for n in counts])
        key = (*counts, like.device, like.dtype)
        if self._divisors is None or self._divisors[0] != key:
            # A tensor kept from a validation in inference mode could not be saved for a backward.
            with torch.inference_mode(False):
                self._divisors = (key, torch.tensor(counts, dtype=like.dtype).to(like.device))
        return self._divisors[1]

    def combine(self, means: Tensor, names: tuple[str, ...]) -> Tensor:
        """The scalar to minimise, from losses before ``loss_weights``.

        Args:
            means: Losses of the present tasks, ``(tasks,)``.
            names: Which tasks these are.
        """
        losses = self.weighed(means, names)
        if not isinstance(self.weighting, LossWeighting):
            return losses.sum()
        total: Tensor = self.weighting(losses, names)
        return total

    def weighed(self, means: Tensor, names: Sequence[str]) -> Tensor:
        """The losses that the weighting sees, ``(tasks,)``: times their ``loss_weights``.

        Args:
            means: Losses of the present tasks, ``(tasks,)``.
            names: Which tasks these are.
        """
        return means if self.factors is None else means * self._factors(names)

    def _factors(self, names: Sequence[str]) -> Tensor | float:
        if self.factors is None:
            return 1.0
        columns = self.weighting.columns(names)
        return self.factors if columns is None else self.factors[columns]

    def _refuse_plain_backward(self) -> None:
        # In the first step nobody can know yet that the gradients will not be asked for.
        weighting = self.weighting
        needs = weighting.gradients is not None and not weighting.deferred and self._used is None
        if not needs or not (self.training and torch.is_grad_enabled()):
            return
        if self._forwards:
            raise UserError(
                "weighting",
                f"{type(weighting).__name__} needs gradients of the {weighting.gradients} by task, "
                "which a backward of the total does not give",
                "a second step in which nobody asked for its weights",
                "Call backward of a polytask.gradients.Engine on the losses by task",
            )
        self._forwards += 1

    def _keep_weights(self, weighting: Weighting, given: Any, named: dict[str, Any], result: Tensor) -> None:
        names = named.get("names", given[1] if len(given) > 1 else None)
        names = weighting.names if names is None else tuple(names)
        if isinstance(weighting, GramianWeighting):
            self._used = names, result
        elif isinstance(weighting, JacobianAggregator):
            losses = named.get("losses")
            losses = torch.ones(len(names), device=result.device) if losses is None else losses.detach()
            self._used = names, weighting.head_weights(losses, names)

    def added_up(self, losses: Mapping[str, float]) -> dict[str, float]:
        """Losses by task with the ``total`` that this criterion makes of them.

        A subclass with a ``forward`` of its own keeps the total that is given.

        Args:
            losses: Losses by task, and ``total``; ``sharing``, a model's own penalty, is added as it is.

        Example:
            >>> criterion = MultiTaskLoss({"a": nn.MSELoss(), "b": nn.MSELoss()}, loss_weights={"b": 0.5})
            >>> criterion.added_up({"a": 1.0, "b": 4.0, "total": 0.0})
            {'a': 1.0, 'b': 4.0, 'total': 3.0}
        """
        names = tuple(name for name in self.names if name in losses)
        if not names or type(self).forward is not MultiTaskLoss.forward:
            return dict(losses)
        device = next((tensor.device for tensor in (*self.parameters(), *self.buffers())), None)
        with torch.no_grad():
            total = self.combine(torch.tensor([losses[name] for name in names], device=device), names)
        return {**losses, "total": float(total) + losses.get(SHARING, 0.0)}

    @property
    def ignore_index(self) -> dict[str, int]:
        """The integer that means "no label", by task."""
        return {name: term.ignore_index for name, term in self._terms.items()}

    def get_task_weights(self) -> dict[str, float]:
        """The effective weight of each task at its last loss, d total / d loss.

        Tasks that were absent from the last batch are left out; before the first batch, the
        weights are those at losses of 1. Of a weighting that needs gradients, they are what its last
        step used, and 1 before that; of one that has no weights for the shared parameters, what the
        tasks' own parameters saw.

        Example:
            >>> losses = {"a": nn.MSELoss(), "b": nn.MSELoss()}
            >>> MultiTaskLoss(losses, loss_weights={"b": 0.5}).get_task_weights()
            {'a': 1.0, 'b': 0.5}
        """
        names, weights = self.effective_weights()
        return dict(zip(names, weights.tolist(), strict=True))

    def effective_weights(self) -> tuple[tuple[str, ...], Tensor]:
        """What `get_task_weights` gives, left on the device: the tasks, and their weights ``(tasks,)``."""
        names, _, effective = self.own_and_effective_weights()
        return names, effective

    def own_and_effective_weights(self) -> tuple[tuple[str, ...], Tensor, Tensor]:
        """The tasks, their weights before ``loss_weights``, and the effective ones; ``(tasks,)`` each.

        Example:
            >>> losses = {"a": nn.MSELoss(), "b": nn.MSELoss()}
            >>> MultiTaskLoss(losses, loss_weights={"b": 0.5}).own_and_effective_weights()
            (('a', 'b'), tensor([1., 1.]), tensor([1.0000, 0.5000]))
        """
        names, own = self._own_weights()
        return names, own, own * self._factors(names)

    def _own_weights(self) -> tuple[tuple[str, ...], Tensor]:
        if not isinstance(self.weighting, LossWeighting):
            return (self.names, self._ones()) if self._used is None else self._used
        names, means = (self.last.names, self.last.means) if self.last else (self.names, self._ones())
        return names, self.weighting.weights(self.weighed(means, names), names)

    def _ones(self) -> Tensor:
        state = next(itertools.chain(self.parameters(), self.buffers()), None)
        return torch.ones(len(self.names), device=None if state is None else state.device)

    def extra_repr(self) -> str:
        """Reduction and loss weights."""
        if not self.names or self.factors is None:
            return f"reduction={self.reduction}"
        weights = dict(zip(self.names, self.factors.tolist(), strict=True))
        return f"reduction={self.reduction}, loss_weights={weights}"


def _by_task(names: tuple[str, ...], means: Tensor) -> dict[str, Tensor]:
    return dict(zip(names, means.unbind(), strict=True))
