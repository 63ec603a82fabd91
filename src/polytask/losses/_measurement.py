"""The losses of a batch by task: computed, added up over ranks, and kept until the next batch."""

import warnings
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any, Literal

import torch
from torch import Tensor, nn

from polytask._distributed import Ranks
from polytask._errors import UserError, hint
from polytask._tasks import check_known
from polytask.batch import HALF, Targets
from polytask.losses._masked_loss import MaskedLoss
from polytask.losses._task_losses import TaskLosses


class LossMeasurement:
    """Computes the losses of a batch by task and keeps those of the last batch.

    Args:
        reduction: How a task's labelled elements combine: ``mean`` or ``sum``.

    Attributes:
        names: All tasks, in order; empty until `setup` was called.
        last: The losses of the last batch of a training, without gradient; None before the first.
        latest: Likewise of the last batch in any mode.
        ranks: The processes that train together, set by `polytask.System`: in training, losses are then
            those of the joined batch, and a task is present if any rank has a label of it.
        detached: The tasks whose losses of the last batch of a training have no graph.
        warns: Whether a warning names them if other losses have one; `polytask.System` raises an error.

    Example:
        >>> measurement = LossMeasurement("mean")
        >>> measurement.setup(["height"], {"height": nn.MSELoss()})
        >>> targets = {"height": torch.tensor([0.0, float("nan")])}
        >>> measurement.measure({"height": torch.tensor([2.0, 3.0])}, targets).means
        tensor([4.])
    """

    def __init__(self, reduction: Literal["mean", "sum"]) -> None:
        self.reduction = reduction
        self.names: tuple[str, ...] = ()
        self.last: TaskLosses | None = None
        self.latest: TaskLosses | None = None
        self.ranks: Ranks | None = None
        self.detached: tuple[str, ...] = ()
        self.warns = True
        self._losses: dict[str, MaskedLoss] = {}
        self._divisors: tuple[tuple[Any, ...], Tensor] | None = None

    def setup(self, names: Iterable[str], losses: Mapping[str, nn.Module]) -> None:
        """Set the tasks and their losses.

        Args:
            names: All tasks, in order.
            losses: The loss of each.

        Raises:
            UserError: If a loss sums and the reduction is ``mean``.
        """
        own = {name: MaskedLoss(name, losses[name]) for name in names}
        for name, loss in own.items():
            if self.reduction == "mean" and loss.reduction == "sum":
                raise UserError(
                    f"task_losses.{name}",
                    "must not sum in a criterion with reduction='mean'",
                    "reduction='sum'",
                    "Set reduction='sum' on the MultiTaskLoss, or scale the task by loss_weights",
                )
        self.names, self._losses = tuple(own), own

    @property
    def ignore_index(self) -> dict[str, int]:
        """The integer that means "no label", by task."""
        return {name: loss.ignore_index for name, loss in self._losses.items()}

    def measure(self, outputs: Any, targets: Any, training: bool = True) -> TaskLosses:
        """Sums and counts of the present tasks' losses.

        Args:
            outputs: The model's outputs by task, or in task order.
            targets: The targets by task, or in task order.
            training: Whether this is a batch of a training, whose losses are added up over the ranks if there
                are several.

        Raises:
            UserError: If an output is missing, or shapes do not fit.
        """
        outputs, targets = self._by_name(outputs, "outputs"), self._by_name(targets, "targets")
        if not isinstance(targets, Targets):
            check_known(targets, self.names, "targets")
            targets = Targets.count(targets, self.ignore_index)
        here = tuple(name for name in self.names if name in targets)
        names, sums, counts = here, [], []
        for name in here:
            if name not in outputs:
                raise UserError(
                    f"task '{name}'", "requires an output of the model", None, hint(name, outputs, "Outputs")
                )
            value, count = self._losses[name](
                outputs[name], targets[name], targets.counts[name], targets.partial.get(name)
            )
            sums.append(value.float() if value.dtype in HALF else value)
            counts.append(count)
        if training and torch.is_grad_enabled():
            self._note_detached(here, sums)
        if self.ranks is not None and training:
            names, sums, counts = self.ranks.join(self.names, here, sums, counts)
        if not names:
            return TaskLosses((), torch.zeros(0), torch.zeros(0))
        stacked = torch.stack(sums)
        if self.reduction == "sum":
            counts = [1.0] * len(names)
        losses = TaskLosses(names, stacked, self._divisor(counts, stacked), here)
        self._keep(replace(losses, sums=stacked.detach()), training)
        return losses

    def _note_detached(self, names: Sequence[str], losses: Sequence[Tensor]) -> None:
        detached = tuple(name for name, loss in zip(names, losses, strict=True) if not loss.requires_grad)
        if self.warns and len(detached) < len(names):
            for name in set(detached) - set(self.detached):
                warnings.warn(
                    f"task '{name}' is not trained: its loss depends on no parameter that is trained",
                    stacklevel=4,
                )
        self.detached = detached

    def _keep(self, losses: TaskLosses, training: bool) -> None:
        self.latest = losses
        # The weights that are reported are those of a training step, also after a validation.
        if training and torch.is_grad_enabled():
            self.last = losses

    def replace_latest(
        self, losses: Mapping[str, Tensor], before: TaskLosses | None, author: str, training: bool = True
    ) -> None:
        """Keep losses that a subclass of the criterion computed as those of the last batch.

        Args:
            losses: Losses of the present tasks.
            before: What `latest` was before they were computed.
            author: The class that computed them, for the message.
            training: As for `measure`.

        Raises:
            UserError: If a name is not a task, a loss is not one number, or there are several ranks and the
                losses do not come from `measure`.
        """
        check_known(losses, self.names, f"{author}.compute_task_losses")
        for name, loss in losses.items():
            if not isinstance(loss, Tensor) or loss.numel() != 1:
                found = f"a tensor of shape {tuple(loss.shape)}" if isinstance(loss, Tensor) else repr(loss)
                raise UserError(
                    f"{author}.compute_task_losses", f"must return a scalar tensor for task '{name}'", found
                )
        names = tuple(name for name in self.names if name in losses)
        if not names:
            return
        means = torch.stack([losses[name].detach().reshape(()) for name in names])
        measured = self.latest
        if measured is not None and measured is not before and measured.names == names:
            self._keep(replace(measured, sums=means * measured.counts), training)
            return
        if self.ranks is not None:
            rule = "must use the losses of super().compute_task_losses on several ranks, which adds them up"
            raise UserError(f"{author}.compute_task_losses", rule, "other losses")
        self._keep(TaskLosses(names, means, torch.ones_like(means)), training)

    def _by_name(self, values: Any, where: str) -> Mapping[str, Any]:
        if isinstance(values, Mapping):
            return values
        if isinstance(values, Tensor) and len(self.names) == 1:
            values = [values]
        if not isinstance(values, (list, tuple)):
            raise UserError(
                where,
                f"must be a dict by task, or a list in the order {', '.join(self.names)}",
                type(values).__name__,
            )
        if len(values) != len(self.names):
            raise UserError(
                where,
                f"must have one entry for each of the tasks {', '.join(self.names)}",
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
