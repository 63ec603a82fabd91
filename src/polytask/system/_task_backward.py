"""How a training's tasks are balanced: the backward, and what the weighting is told."""

from collections.abc import Callable, Iterable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from polytask._distributed import Ranks
from polytask._errors import UserError
from polytask.batch import Batch
from polytask.gradients import Engine
from polytask.losses import MultiTaskLoss, TaskLosses
from polytask.weighting._base import Gradients


class Balance:
    """Fills ``.grad`` as a criterion's weighting wants it, and calls the weighting's hooks.

    After an optimizer step the weighting is told the losses of the last batch before it, or, where it
    asks for them, that batch's losses measured again. Where that batch was skipped it is told nothing.

    Args:
        model: The model, before its first forward.
        criterion: The criterion; its weighting is checked by `check` from here on, and not in its steps.
        level: What a weighting by gradients measures, as for `polytask.gradients.Engine`.
        refresh_every: In how many steps it measures once.
        scale_heads: Whether the parameters of one task alone see its weight.

    Attributes:
        weights: The tasks' weights in the last step that `keep_weights` was called in.
        losses: The batch's losses from its forward until the optimizer has stepped; None where it has none.

    Example:
        >>> balance = Balance(nn.Linear(2, 3), MultiTaskLoss({"digit": nn.CrossEntropyLoss()}))
        >>> balance.keep_weights()
        >>> balance.weights
        {'digit': 1.0}
    """

    def __init__(
        self,
        model: nn.Module,
        criterion: MultiTaskLoss,
        level: Gradients | None = None,
        refresh_every: int = 1,
        scale_heads: bool | None = None,
    ) -> None:
        self.criterion = criterion
        self.weighting = criterion.weighting
        self.engine = Engine(model, self.weighting, level, refresh_every, scale_heads)
        self.weighting.deferred = True
        self.weights: dict[str, float] = {}
        self.ranks: Ranks | None = None
        self._buffers: nn.Module | None = None
        self._batch: Batch | None = None
        self.losses: TaskLosses | None = None
        self._step: tuple[Tensor, Mapping[str, Tensor]] | None = None

    def check_batches(self, batches: int) -> None:
        """Raise where the weighting cannot work on so many batches.

        Args:
            batches: How many make an optimizer step.

        Raises:
            UserError: With what to set.
        """
        where, found = "trainer.accumulate_grad_batches", str(batches)
        needed = self.weighting.batches_per_step
        if needed > 1 and batches != needed:
            rule = f"is {needed} with {type(self.weighting).__name__}, which takes {needed} batches a step"
            raise UserError(where, rule, found, f"Set it to {needed}")
        if batches > 1 and not self.engine.accumulates:
            rule = "is 1 where gradients are measured on the representation"
            raise UserError(where, rule, found, "Set it to 1, or use level: parameters")

    def start(self) -> None:
        """Begin a fit, alone, with nothing left of one that was stopped."""
        self.ranks = self.criterion.measurement.ranks = self.engine.ranks = None
        self.engine.forget()

    def join(self, ranks: Ranks, buffers: nn.Module | None) -> None:
        """Train together with other processes.

        Args:
            ranks: All of them.
            buffers: Whose buffers are those of the first rank in every step.
        """
        self.ranks = self.criterion.measurement.ranks = self.engine.ranks = ranks
        self._buffers = buffers
        ranks.copy_state(self.weighting)

    def check(self) -> None:
        """Raise where a step since the last call could not be done."""
        self.weighting.check()

    def begin(self) -> None:
        """A new batch: nothing is known of it yet."""
        self._forget()
        self.engine.begin()
        if self.ranks is not None and self._buffers is not None:
            self.ranks.copy_buffers(self._buffers)

    def _forget(self) -> None:
        self._batch = self.losses = self._step = None

    def note(self, batch: Batch, total: Tensor, losses: Mapping[str, Tensor]) -> None:
        """Keep what the backward needs, and what the weighting may be told after the step.

        Args:
            batch: The batch that was measured last.
            total: Its total.
            losses: Its losses by task, and entries beside the tasks.
        """
        self.losses = self.criterion.measurement.last
        self._batch = batch if self.weighting.remeasures else None
        self._step = total, losses

    @property
    def open(self) -> bool:
        """Whether every batch has to come to `backward`, also one without a label."""
        return self.ranks is not None or self.engine.begun

    def backward(self, loss: Tensor, last: bool, batches: int, scaled: bool) -> None:
        """Fill ``.grad``.

        Args:
            loss: The total, divided by the number of batches and multiplied by a loss scaler.
            last: Whether the optimizer steps next.
            batches: How many make an optimizer step.
            scaled: Whether there is a loss scaler.
        """
        step, self._step = self._step, None
        if step is not None and self.engine.measures:
            total, losses = step
            scale = _scale(loss, total) * batches if scaled and total.requires_grad else 1.0
            self._measure(losses, scale, last, batches)
        elif step is not None and loss.requires_grad:
            total, losses = step
            scale = _scale(loss, total) * batches if scaled and self.engine.watched else 1.0
            self.engine.show(self._weighed(losses), scale=scale, last=last)
            loss.backward()  # type: ignore[no-untyped-call]
        if last:
            self.engine.finish()

    def _measure(self, losses: Mapping[str, Tensor], scale: Tensor | float, last: bool, batches: int) -> None:
        # A method that takes several batches in a step makes it of each of them whole.
        whole = self.weighting.batches_per_step > 1
        self.engine.backward(self._weighed(losses), scale=scale, last=last or whole, calls=batches)
        # Entries beside the tasks, a penalty for example, are no task's: they are added as they are.
        beside = [value for name, value in losses.items() if name not in self.criterion.names]
        parts = [value * (scale / batches) for value in beside if value.requires_grad]
        if parts:
            torch.stack(parts).sum().backward()  # type: ignore[no-untyped-call]

    def _weighed(self, losses: Mapping[str, Tensor]) -> TaskLosses:
        """The losses that the weighting sees, with their graphs."""
        names = tuple(name for name in self.criterion.names if name in losses)
        means = self.criterion.combination.weighed(torch.stack([losses[name] for name in names]), names)
        last = self.criterion.measurement.last
        if last is None or last.names != names:
            self._refuse_ranks()
            return TaskLosses(names, means, torch.ones_like(means))
        counts = last.counts.to(means)
        return TaskLosses(names, means * counts, counts, last.here)

    def _refuse_ranks(self) -> None:
        if self.ranks is not None:
            kind, method = type(self.criterion).__name__, type(self.weighting).__name__
            rule = f"on several ranks, {method} requires the losses of {kind}.compute_task_losses"
            raise UserError("criterion", rule, "others", "Let its forward call compute_task_losses")

    def average(self, parameters: Iterable[nn.Parameter]) -> None:
        """The mean of ``.grad`` over the ranks, where there are several.

        Args:
            parameters: All that is trained.
        """
        if self.ranks is not None:
            self.ranks.average_gradients(parameters)

    def keep_weights(self) -> None:
        """Keep the weights of this step, which the step itself may change."""
        self.weights = self.criterion.get_task_weights()

    def after_step(self, measure: Callable[[Batch], Any]) -> None:
        """Tell the weighting the losses.

        Args:
            measure: Calls the model and the criterion on a batch.
        """
        losses, batch = self.losses, self._batch
        self._forget()
        if losses is None:
            return
        if batch is not None:
            losses = self.measured_again(batch, measure)
        with torch.no_grad():
            self.weighting.after_step(
                self.criterion.combination.weighed(losses.means, losses.names), losses.names
            )

    def measured_again(self, batch: Batch, measure: Callable[[Batch], Any]) -> TaskLosses:
        """A batch's losses without gradient, of which the weighting learns nothing.

        Args:
            batch: The batch.
            measure: Calls the model and the criterion on a batch.
        """
        own = self.criterion.measurement.last
        # The weighting has seen this batch, and is not to take it for the next one.
        self.weighting.eval()
        try:
            with torch.no_grad():
                measure(batch)
        finally:
            self.weighting.train()
        measurement = self.criterion.measurement
        again, measurement.last = measurement.last, own
        assert again is not None
        return again

    def on_epoch_end(self, means: Mapping[str, float], device: torch.device) -> None:
        """Tell the weighting the epoch's mean losses, times their ``loss_weights``.

        Args:
            means: Mean losses by task; other entries are passed over.
            device: Where the weighting is.
        """
        names = tuple(name for name in self.criterion.names if name in means)
        losses = torch.tensor([means[name] for name in names], device=device)
        self.weighting.on_epoch_end(self.criterion.combination.weighed(losses, names), names)

    def saved(self) -> dict[str, Any]:
        """The weights in use and what the engine has learned; plain data."""
        return {"weights": self.weights, "engine": self.engine.state_dict()}

    def restore(self, saved: Mapping[str, Any]) -> None:
        """Take up what `saved` gave.

        Args:
            saved: What was kept.
        """
        self.weights = saved["weights"]
        self.engine.load_state_dict(saved["engine"])


def _scale(loss: Tensor, total: Tensor) -> Tensor:
    """What a total was multiplied by on its way to the loss."""
    (scale,) = torch.autograd.grad(loss, total, retain_graph=True)
    return scale
