"""The backward of a training with several tasks, and the weighting's hooks around it."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, Self

import torch
from torch import Tensor, nn

from polytask._distributed import Ranks
from polytask._errors import UserError
from polytask.batch import Batch
from polytask.gradients import Engine, leaves_of
from polytask.losses import MultiTaskLoss, TaskLosses
from polytask.weighting._base import Gradients


class TaskBackward:
    """Fills ``.grad`` as a criterion's weighting prescribes, and calls the weighting's hooks.

    After an optimizer step the weighting receives the losses of the last batch before it, or, if it requests
    them, that batch's losses at the new parameters. If that batch was skipped, it receives nothing.

    Args:
        model: The model, before its first forward.
        criterion: The criterion; from here on its weighting is checked by `check`, and not in its steps.
        level: Which gradients a gradient-based weighting is given, as for `polytask.gradients.Engine`.
        refresh_every: The number of steps for which such a weighting's weights are kept.
        scale_heads: Whether the parameters of one task alone see its weight.

    Attributes:
        weights: The tasks' weights in the last step in which `keep_weights` was called.
        losses: The batch's losses from its forward until the optimizer has stepped; None without labels.
        ranks: The processes that train together; None if there is one.

    Example:
        >>> task_backward = TaskBackward(nn.Linear(2, 3), MultiTaskLoss({"digit": nn.CrossEntropyLoss()}))
        >>> task_backward.keep_weights()
        >>> task_backward.weights
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
        # The hooks are called here.
        self.engine.own_loop = None
        criterion.measurement.warns = False
        self.weighting.deferred = True
        self.weights: dict[str, float] = {}
        self.ranks: Ranks | None = None
        self._buffers: nn.Module | None = None
        self._batch: Batch | None = None
        self.losses: TaskLosses | None = None
        self._step: tuple[Tensor, Mapping[str, Tensor]] | None = None
        self._graphs: Mapping[str, Tensor] = {}
        self._seen_batches, self._called = 0, False

    @classmethod
    def of(
        cls,
        model: nn.Module,
        criterion: nn.Module,
        level: Gradients | None,
        refresh_every: int,
        scale_heads: bool | None,
    ) -> Self | None:
        """The task backward of a `MultiTaskLoss`; None for another criterion, whose total has a backward.

        Args:
            model: The model.
            criterion: The criterion.
            level: As for the class; must be None for another criterion.
            refresh_every: As for the class; must be 1 for another criterion.
            scale_heads: As for the class; must be None for another criterion.

        Raises:
            UserError: If an option has no use.

        Example:
            >>> TaskBackward.of(nn.Linear(2, 3), nn.CrossEntropyLoss(), None, 1, None) is None
            True
        """
        if isinstance(criterion, MultiTaskLoss):
            return cls(model, criterion, level, refresh_every, scale_heads)
        if (level, refresh_every, scale_heads) != (None, 1, None):
            rule = "level, refresh_every and scale_heads require a MultiTaskLoss as criterion"
            raise UserError("system", rule, type(criterion).__name__, "Remove them")
        return None

    def check_batches(self, batches: int) -> None:
        """Check the number of batches in an optimizer step.

        Args:
            batches: The number.

        Raises:
            UserError: If the weighting or the level cannot work with it.
        """
        where, found = "trainer.accumulate_grad_batches", str(batches)
        needed = self.weighting.batches_per_step
        if needed > 1 and batches != needed:
            method = type(self.weighting).__name__
            rule = f"must be {needed} with {method}, which takes {needed} batches per step"
            raise UserError(where, rule, found, f"Set it to {needed}")
        if batches > 1 and not self.engine.accumulates:
            rule = "must be 1 with gradients of the representation"
            raise UserError(where, rule, found, "Set it to 1, or use level: parameters")

    def start(self) -> None:
        """Begin a fit in one process; forget what a fit that was stopped has left."""
        self.ranks = self.criterion.measurement.ranks = self.engine.ranks = None
        self.engine.forget()
        self._seen_batches, self._called = 0, False

    def join(self, ranks: Ranks, buffers: nn.Module | None) -> None:
        """Train together with other processes.

        Args:
            ranks: All processes.
            buffers: The module whose buffers are copied from the first rank in every step.
        """
        self.ranks = self.criterion.measurement.ranks = self.engine.ranks = ranks
        self._buffers = buffers
        ranks.copy_state(self.weighting)

    def check(self) -> None:
        """Raise if the weighting failed in a step since the last call."""
        self.weighting.check()

    def begin(self) -> None:
        """Begin a new batch."""
        self._forget()
        self.criterion.measurement.detached = ()
        self._seen_batches += 1
        self.engine.begin()
        if self.ranks is not None and self._buffers is not None:
            self.ranks.copy_buffers(self._buffers)

    def _forget(self) -> None:
        self._batch = self.losses = self._step = None
        self._graphs = {}

    def note(self, batch: Batch, total: Tensor, losses: Mapping[str, Tensor]) -> None:
        """Keep what the backward and the weighting's ``after_step`` need.

        Args:
            batch: The batch of the last forward.
            total: Its total.
            losses: Its losses by task, and auxiliary losses such as a penalty.
        """
        self.losses = self.criterion.measurement.latest
        self._batch = batch if self.weighting.remeasures else None
        self._step = total, losses

    @property
    def open(self) -> bool:
        """Whether `backward` has to be called for every batch, even for one without a label."""
        return self.ranks is not None or self.engine.begun

    def backward(self, loss: Tensor, last: bool, batches: int, scaled: bool) -> None:
        """Fill ``.grad``.

        Args:
            loss: The total, divided by the number of batches and multiplied by a loss scaler.
            last: Whether the optimizer steps next.
            batches: The number of batches in an optimizer step.
            scaled: Whether there is a loss scaler.
        """
        step, self._step = self._step, None
        # An epoch's last step may have fewer batches; an optimizer may evaluate a batch more than once.
        part = min(1.0, self._seen_batches / batches)
        if step is not None:
            self._graphs = {name: step[1][name] for name in self._by_task(step[1])}
        if step is not None and self.engine.measures:
            total, losses = step
            scale = _scale(loss, total) * batches if scaled and total.requires_grad else 1.0
            self._engine_backward(losses, scale, last, batches, part)
        elif step is not None and loss.requires_grad:
            total, losses = step
            scale = _scale(loss, total) * batches if scaled and self.engine.observed else 1.0
            if self.engine.observed or self._by_task(losses):
                self.engine.notify_observers(self._weighed(losses), scale=scale, last=last)
            loss.backward()  # type: ignore[no-untyped-call]
        if last:
            self.engine.finish(part)

    def _engine_backward(
        self, losses: Mapping[str, Tensor], scale: Tensor | float, last: bool, batches: int, part: float
    ) -> None:
        # A method that takes several batches per step needs the whole gradients of each of them.
        whole = self.weighting.batches_per_step > 1
        self._called = True
        # Auxiliary losses, a penalty for example, belong to no task: they are added without a weight.
        auxiliary = [value for name, value in losses.items() if name not in self.criterion.names]
        parts = [value * (scale / batches) for value in auxiliary if value.requires_grad]
        self.engine.backward(
            self._weighed(losses),
            scale=scale,
            last=last or whole,
            calls=batches,
            part=1.0 if whole else part,
            auxiliary=torch.stack(parts).sum() if parts else None,
        )

    def _by_task(self, losses: Mapping[str, Tensor]) -> tuple[str, ...]:
        return tuple(name for name in self.criterion.names if name in losses)

    def _weighed(self, losses: Mapping[str, Tensor]) -> TaskLosses:
        """The losses that the weighting sees, with their graphs."""
        names = self._by_task(losses)
        if not names:
            rule = "must return the losses by task for a gradient-based weighting or a recorder of gradients"
            kind = type(self.criterion).__name__
            raise UserError(
                "criterion", rule, f"a total alone from {kind}", "Accept return_dict in its forward"
            )
        means = self.criterion.combination.weighed(torch.stack([losses[name] for name in names]), names)
        last = self.criterion.measurement.latest
        if last is None or last.names != names:
            self._refuse_ranks()
            return TaskLosses(names, means, torch.ones_like(means))
        counts = last.counts.to(means)
        return TaskLosses(names, means * counts, counts, last.here)

    def _refuse_ranks(self) -> None:
        if self.ranks is not None:
            kind, method = type(self.criterion).__name__, type(self.weighting).__name__
            rule = f"{kind} must return the losses of compute_task_losses if {method} trains on several ranks"
            raise UserError("criterion", rule, "other losses", "Call compute_task_losses in its forward")

    def average(self, parameters: Iterable[nn.Parameter]) -> None:
        """Average ``.grad`` over the ranks, if there are several.

        Args:
            parameters: All parameters that are trained.
        """
        if self.ranks is not None:
            self.ranks.average_gradients(parameters)

    def keep_weights(self) -> None:
        """Keep the weights of this step, which the step itself may change."""
        self.weights = self.criterion.get_task_weights()

    def number(self, step: int) -> None:
        """Set the number of the step, for the weighting's messages.

        Args:
            step: The number, from 0.
        """
        self.weighting.number(step)

    def culprits(self, parameters: Sequence[Tensor]) -> tuple[str, ...]:
        """The tasks whose gradients in the last step are not finite, as far as that can be known.

        Args:
            parameters: The parameters whose ``.grad`` is not finite.
        """
        known = self.engine.nonfinite
        if known or not parameters:
            return known
        # Without gradients by task, the parameters that one task alone reaches show it.
        reached = leaves_of(self._graphs)
        owners = [[name for name in reached if parameter in reached[name]] for parameter in parameters]
        own = {tasks[0] for tasks in owners if len(tasks) == 1}
        return tuple(name for name in self.criterion.names if name in own)

    def undo(self) -> None:
        """Forget a step that is skipped."""
        self._forget()
        self._seen_batches = 0
        # Without a label the engine was not called, and its last step is an earlier one, which was taken.
        if self._called:
            self.engine.undo()
            self.weighting.discard()
        self._called = False

    def after_step(self, recompute: Callable[[Batch], TaskLosses]) -> None:
        """Pass the losses to the weighting.

        Args:
            recompute: From a batch to its losses at the current parameters.
        """
        losses, batch = self.losses, self._batch
        self._forget()
        self._seen_batches, self._called = 0, False
        if losses is None:
            return
        if batch is not None:
            losses = recompute(batch)
        with torch.no_grad():
            self.weighting.after_step(
                self.criterion.combination.weighed(losses.means, losses.names), losses.names
            )

    @contextmanager
    def unobserved(self) -> Iterator[None]:
        """A context in which the criterion is called without gradient and the weighting keeps its state.

        Example:
            >>> criterion = MultiTaskLoss({"digit": nn.CrossEntropyLoss()})
            >>> with TaskBackward(nn.Linear(2, 3), criterion).unobserved():
            ...     criterion.weighting.training
            False
        """
        # The weighting has seen this batch, and must not take it for the next one.
        self.weighting.eval()
        try:
            with torch.no_grad():
                yield
        finally:
            self.weighting.train()

    def last_losses(self) -> TaskLosses:
        """The losses of the criterion's last call."""
        assert self.criterion.measurement.latest is not None
        return self.criterion.measurement.latest

    def on_epoch_end(self, means: Mapping[str, float], device: torch.device) -> None:
        """Pass the epoch's mean losses, times their ``loss_weights``, to the weighting.

        Args:
            means: Mean losses by task; other entries are ignored.
            device: The weighting's device.
        """
        names = tuple(name for name in self.criterion.names if name in means)
        losses = torch.tensor([means[name] for name in names], device=device)
        self.weighting.on_epoch_end(self.criterion.combination.weighed(losses, names), names)

    def state_dict(self) -> dict[str, Any]:
        """The weights in use and the engine's state; plain data and tensors."""
        return {"weights": self.weights, "engine": self.engine.state_dict()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Load a state.

        Args:
            state: What `state_dict` returned.
        """
        self.weights = state["weights"]
        self.engine.load_state_dict(state["engine"])


def _scale(loss: Tensor, total: Tensor) -> Tensor:
    """The factor between a total and the loss that was made of it."""
    (scale,) = torch.autograd.grad(loss, total, retain_graph=True)
    return scale
