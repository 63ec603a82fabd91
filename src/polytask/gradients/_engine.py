"""The engine: from several losses to ``.grad``."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from polytask._checks import check_integer
from polytask._distributed import Ranks
from polytask._errors import UserError, hint
from polytask.gradients._accumulate import accumulate
from polytask.gradients._backward_step import BackwardStep, Losses, by_name, named
from polytask.gradients._combine import ByBatches, ByGramian, ByJacobian, Combine
from polytask.gradients._compiled import allow_repeats
from polytask.gradients._jacobian import Pairs, derivatives, times
from polytask.gradients._levels import LEVELS, ByRows, Level, Measured, MeasuredRows, explicit, weighted
from polytask.gradients._observer import ObservedStep, Observers, StepObserver
from polytask.gradients._own_loop import OwnLoop
from polytask.gradients._sharing import Sharing
from polytask.gradients._update import Situation, Update, choose
from polytask.gradients._window import Window
from polytask.weighting import GramianWeighting, JacobianAggregator, LossWeighting, Weighting
from polytask.weighting._base import Gradients


class Engine:
    r"""Fills ``.grad`` with the update of any weighting, instead of ``loss.backward()``.

    With the tasks' gradients :math:`g_i` by the shared parameters, the rows of the Jacobian *J*, a
    `GramianWeighting` is given :math:`G = J J^\top` and the shared parameters' ``.grad`` grows by
    :math:`J^\top w`; a `JacobianAggregator` is given *J* and makes the update; a `LossWeighting`
    takes a plain backward. Parameters that one task alone reaches get that task's gradient.

    Shared parameters need not be named: a `torch.nn.Parameter` is shared once two tasks have reached it in
    the graphs of the steps, also one of a head that several losses use. The model must have all of them. The
    row of a task that does not reach it holds 0 there. Until every task has been seen, steps in which nothing
    is known to be shared use the sum of the losses. With a single task, every parameter counts as shared.

    Create one engine for a model, before the first forward: it observes the model's layers.

    Args:
        model: The model, with every parameter that two tasks reach.
        weighting: How the tasks are balanced.
        level: What the Gramian is made of: all shared ``parameters``, exactly; the ``representation``
            that the heads of ``model.heads`` receive, which costs little more than a plain backward;
            the ``last_shared`` layer's parameters. None means the method's default. The update is that of
            the weights in each case.
        refresh_every: Number of steps from one computation of the weights to the next. They are kept in
            between, and the gradients by task are not computed there.
        scale_heads: Whether the parameters of one task alone are scaled by its weight too. None means the
            method's default.
        tasks: All tasks, in order. None means those of the first step, which must then have them all; a
            weighting that learns parameters requires them, since the optimizer does too.
        steps_per_epoch: The number of optimizer steps in an epoch, which a weighting that receives the
            losses of epochs requires.

    Attributes:
        own_loop: Calls the weighting's hooks; set it to None to call them yourself.

    Raises:
        UserError: If the level, the model and the weighting do not fit together, or the weighting has other
            tasks.

    Example:
        >>> from polytask.models import MLP, MultiHead
        >>> from polytask.weighting import UPGrad
        >>> _ = torch.manual_seed(0)
        >>> model = MultiHead(MLP(4, [8], 8), {"a": nn.Linear(8, 1), "b": nn.Linear(8, 1)})
        >>> engine = Engine(model, UPGrad())
        >>> outputs = model(torch.randn(16, 4))
        >>> engine.backward({task: output.square().mean() for task, output in outputs.items()})
        >>> all(parameter.grad is not None for parameter in model.parameters())
        True
        >>> sorted(engine.weights)
        ['a', 'b']

    Deviations:
        A parameter that only some tasks share is part of the one Gramian of all present tasks, and its
        update is the weighted sum over the tasks that reach it.
    """

    def __init__(
        self,
        model: nn.Module,
        weighting: Weighting,
        level: Gradients | None = None,
        refresh_every: int = 1,
        scale_heads: bool | None = None,
        *,
        tasks: Sequence[str] | None = None,
        steps_per_epoch: int | None = None,
    ) -> None:
        self.weighting = weighting
        self.own_loop: OwnLoop | None = OwnLoop(weighting, steps_per_epoch)
        if tasks is not None:
            self.own_loop.name(tasks, given=True)
        self.refresh_every = refresh_every
        self.scale_heads = scale_heads
        self._check(level)
        self._combine = _combine(weighting, scale_heads)
        self.level = _level_name(level or weighting.gradients, self._combine)
        self._level = _level(model, self.level, self._combine)
        self._sharing = Sharing(model)
        self._window = Window()
        self._observers = Observers(self.level, self._level)
        self._steps = 0
        self._begun = False
        self._before: tuple[int, dict[str, Tensor]] = 0, {}
        self.ranks: Ranks | None = None
        self.begin()

    @property
    def weights(self) -> dict[str, Tensor]:
        """The last weights that were computed, by task; empty unless the method is a `GramianWeighting`."""
        return {} if self._combine is None else self._combine.weights

    def _check(self, level: str | None) -> None:
        method = type(self.weighting).__name__
        if level is not None and level not in LEVELS:
            rule = f"must be one of {', '.join(LEVELS)}"
            raise UserError("level", rule, repr(level), hint(str(level), LEVELS))
        every = self.refresh_every = check_integer(self.refresh_every, "refresh_every", 1)
        if isinstance(self.weighting, LossWeighting):
            given = {"level": level is not None, "refresh_every": every > 1}
            given["scale_heads"] = self.scale_heads is not None
            for name in (name for name, wrong in given.items() if wrong):
                raise UserError(name, "requires a gradient-based weighting", method, "Leave it out")
        if isinstance(self.weighting, JacobianAggregator):
            if level not in (None, "parameters"):
                raise UserError("level", f"must be 'parameters' for {method}", repr(level), "Leave it out")
            if every > 1:
                raise UserError("refresh_every", "requires a method with weights", method, "Leave it out")
        batches = self.weighting.batches_per_step
        if batches > 1 and (level not in (None, "parameters") or every > 1):
            found = f"level={level!r}, refresh_every={every}"
            rule = f"{method} requires {batches} batches a step and the level 'parameters'"
            raise UserError("Engine", rule, found, "Leave level and refresh_every out")

    def backward(
        self,
        losses: Losses,
        *,
        names: Sequence[str] | None = None,
        scale: float | Tensor = 1.0,
        last: bool = True,
        calls: int = 1,
        part: float = 1.0,
        auxiliary: Tensor | None = None,
    ) -> None:
        """Add the update to ``.grad``; frees the graph.

        If a method takes several batches in a step, ``.grad`` is filled by the last of that many calls: step
        the optimizer then.

        Args:
            losses: Losses of the present tasks, scalars by task; or ``(tasks,)`` made by `torch.stack`;
                or `polytask.losses.TaskLosses`, as ``criterion.measurement.measure`` returns them.
            names: Which tasks a tensor's losses belong to; None means all tasks.
            scale: Factor of the losses, from a loss scaler: ``scaler.scale(torch.ones(()))`` on the device of
                the losses. ``.grad`` is that of scaled losses, and the weights do not depend on it. If scaled
                gradients are not finite, neither is ``.grad``, and the weighting is not called. Any value but
                1.0 costs one synchronisation.
            last: Whether the optimizer steps next. Gradients of earlier calls are added up, and the weights
                are computed from their sum; for `TaskLosses` they are those of the mean over all labels.
            calls: Number of calls in a step, by which the gradients are divided if weights of an earlier
                step are kept.
            part: The part of that number that the step has: below 1 in an epoch's last, shorter step. The
                update is multiplied by it, as the sum of losses that are divided by ``calls`` would be.
            auxiliary: A loss that belongs to no task, such as a penalty, with a graph of its own: its
                gradients are added to the update as they are. Only for a weighting that needs gradients.

        Raises:
            UserError: If the losses do not fit, no parameter is shared, or a task's loss does not go
                through its head's representation.
            RunError: On the CPU without ``deferred``, if a task's gradient is not finite.
        """
        combine, level = self._combine, self._level
        begins, own = not self._begun, self.own_loop
        if own is not None:
            own.name(named(losses, names), given=False)
            if begins:
                own.begin()
        self._begun = not last
        if combine is None or level is None:
            present, values = by_name(losses, self.weighting, names)
            self.notify_observers(losses, names=names, scale=scale, last=last)
            (self.weighting(torch.stack(values), present) * scale).backward()
            if own is not None and last:
                own.end(present, torch.stack(values).detach())
            return
        if not self._window.begun:
            self._before = self._steps, dict(combine.weights)
        if not last and not level.accumulates:
            raise UserError("last", "must be True at the level 'representation'", repr(last))
        step = BackwardStep.of(losses, self.weighting, names, scale, self.ranks)
        # Within autocast, products of gradients would be rounded to half precision.
        with torch.autocast(step.losses.device.type, enabled=False):
            pairs = self._pairs(step, combine, level, last, calls, part)
            accumulate(pairs if auxiliary is None else pairs + derivatives(auxiliary))
        level.forget()
        self._steps += last
        if own is not None and last:
            own.end(step.names, step.losses)

    def after_step(self, losses: Losses, *, names: Sequence[str] | None = None) -> None:
        """Pass the losses of a batch after the optimizer step to a weighting that learns from their change.

        Args:
            losses: As for `backward`, of the same batch, computed again after ``optimizer.step()``; they
                need no graph.
            names: As for `backward`.

        Raises:
            UserError: If the losses do not fit.
        """
        if self.own_loop is not None:
            present, values = by_name(_attached(losses), self.weighting, names)
            self.own_loop.after_step(present, torch.stack(values))

    def _pairs(
        self, step: BackwardStep, combine: Combine, level: Level, last: bool, calls: int, part: float
    ) -> Pairs:
        # The calls of one step may have any task: weights are kept for all tasks in all of them, or in none.
        needed = self.weighting.names if calls > 1 else step.names
        kept = self._steps % self.refresh_every > 0 and combine.weights.keys() >= set(needed)
        self._learn(step, kept or level.needs_graph or self._observers.due)
        shared = self._sharing.shared(self.weighting.names)
        self._observers.measure(step, shared, last, kept, self.weighting.names)
        update = choose(Situation(bool(shared), kept, first=not self._window.begun, last=last))
        if update in (Update.SUM_OF_LOSSES, Update.KEPT_WEIGHTS):
            combine.finite = None
        match update:
            case Update.SUM_OF_LOSSES:
                return times(weighted(step, shared, torch.ones_like(step.losses), True), part)
            case Update.KEPT_WEIGHTS:
                weights = torch.stack([combine.weights[name] for name in step.names])
                return weighted(step, shared, weights / calls, combine.scale_heads, 1 / calls)
            case Update.SINGLE_BATCH:
                return times(self._combined(combine, step, level.measure(step, shared), shared), part)
            case Update.ADD_TO_WINDOW:
                self._add(step, level, shared)
                return []
            case Update.CLOSE_WINDOW:
                self._add(step, level, shared)
                return times(self._closed(combine), part)

    def _learn(self, step: BackwardStep, trace: bool) -> None:
        here = step.here_names
        if here and (trace or not self._sharing.knows(here)):
            self._sharing.learn(step.graph, here)
        if self.ranks is not None:
            self._sharing.agree(self.ranks)
        self._sharing.check_owned()

    def _add(self, step: BackwardStep, level: Level, shared: Sequence[Tensor]) -> None:
        self._window.add(step, explicit(step, shared), level.within(step, shared) if shared else None)

    def _combined(
        self, combine: Combine, step: BackwardStep, measured: Measured, shared: Sequence[Tensor]
    ) -> Pairs:
        self._observers.notify(step, measured, shared)
        return combine.pairs(step, measured)

    def _closed(self, combine: Combine) -> Pairs:
        step, rows, by = self._window.close(self.weighting.names)
        if not rows.parameters:
            return rows.heads(None)
        return self._combined(combine, step, MeasuredRows(rows.over(step.ranks), by), rows.parameters)

    def observe(self, level: Gradients, callback: Callable[[ObservedStep], None]) -> StepObserver:
        """Register an observer of steps.

        If the engine measures at this level, nothing is computed for the observer. Otherwise the gradients
        are computed in addition, which costs a backward for each task (over the heads alone for the
        ``representation``). The update is the same in both cases.

        Args:
            level: What the Gramian is made of.
            callback: Called in `backward` of a step for which the observer is ``due``, before ``.grad`` is
                filled.
        """
        observer = StepObserver(level, callback)
        self._observers.registered.append(observer)
        self.begin()
        return observer

    def remove_observer(self, observer: StepObserver) -> None:
        """Remove an observer.

        Args:
            observer: What `observe` returned.
        """
        self._observers.registered.remove(observer)

    @property
    def observers(self) -> tuple[StepObserver, ...]:
        """The observers that are registered."""
        return tuple(self._observers.registered)

    @property
    def observed(self) -> bool:
        """Whether an observer is due in the next step."""
        return self._observers.due

    def notify_observers(
        self,
        losses: Losses,
        *,
        names: Sequence[str] | None = None,
        scale: float | Tensor = 1.0,
        last: bool = True,
    ) -> None:
        """Notify the observers that are due of a step whose backward is not this engine's; keeps the graph.

        Args:
            losses: As for `backward`.
            names: As for `backward`.
            scale: As for `backward`.
            last: As for `backward`.
        """
        if self.observed:
            step = BackwardStep.of(losses, self.weighting, names, scale, self.ranks)
            self._learn(step, True)
            shared = self._sharing.found(self.weighting.names)
            self._observers.measure(step, shared, last, True, self.weighting.names)

    def sizes(self) -> tuple[int, dict[str, int]]:
        """Numbers of elements of the shared parameters, and of those of one task alone, by task."""
        names = self.weighting.names
        return sum(parameter.numel() for parameter in self._sharing.found(names)), self._sharing.own(names)

    def finish(self, part: float = 1.0) -> None:
        """Fill ``.grad`` from the calls so far if the last batch of a step had no label.

        If a method takes several batches and has fewer, ``.grad`` stays as it is.

        Args:
            part: As for `backward`.
        """
        if self._combine is not None and self._window.begun:
            accumulate(times(self._closed(self._combine), part))
            self._steps += 1
        self._observers.finish(self.weighting.names)
        self.forget()

    def undo(self) -> None:
        """Forget the last step, which the optimizer does not take: the weights kept before it hold again."""
        if self._combine is not None:
            self._steps, self._combine.weights = self._before[0], dict(self._before[1])
            self._combine.finite = None
        self.forget()

    @property
    def nonfinite(self) -> tuple[str, ...]:
        """The tasks whose gradients in the last step were not finite, as far as they were computed by task.

        Read on the host.
        """
        names, finite = (self._combine and self._combine.finite) or ((), torch.ones(0))
        return tuple(name for name, fine in zip(names, finite.tolist(), strict=True) if not fine)

    def begin(self) -> None:
        """Prepare for a forward; discard what an earlier one left behind if no `backward` followed it."""
        if self._level is not None:
            self._level.forget()
        if self.measures or self._observers.registered:
            allow_repeats()

    def forget(self) -> None:
        """Discard what was recorded since the last optimizer step."""
        self._window.forget()
        if self._combine is not None:
            self._combine.forget()
        if self._level is not None:
            self._level.forget()

    @property
    def begun(self) -> bool:
        """Whether gradients of calls since the last optimizer step wait to be added up."""
        return self._window.begun

    @property
    def accumulates(self) -> bool:
        """Whether gradients of several calls can be added up."""
        return self._level is None or self._level.accumulates

    @property
    def measures(self) -> bool:
        """Whether the weighting needs gradients by task, which a plain backward does not give."""
        return self._combine is not None

    def state_dict(self) -> dict[str, Any]:
        """The parameters that each task reached, the weights in use and the number of steps; plain data."""
        weights = {name: float(weight) for name, weight in self.weights.items()}
        return {"shared": self._sharing.state_dict(), "weights": weights, "steps": self._steps}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continue from a state, between two optimizer steps.

        Args:
            state: What `state_dict` returned.
        """
        self.forget()
        self._sharing.load_state_dict(state["shared"])
        like = next(iter(self._sharing.tasks))
        weights = {name: like.new_tensor(value) for name, value in state["weights"].items()}
        self.weights.clear()
        self.weights.update(weights)
        self._steps = state["steps"]


def _attached(losses: Losses) -> Losses:
    """Losses that may lack a graph in a form that has one."""
    if isinstance(losses, Tensor):
        return losses.detach().requires_grad_()
    by_task = losses if isinstance(losses, Mapping) else dict(zip(losses.names, losses.means, strict=True))
    return {name: torch.as_tensor(loss).detach().requires_grad_() for name, loss in by_task.items()}


def _level_name(name: Gradients | None, combine: Combine | None) -> Gradients | None:
    return None if combine is None else name


def _level(model: nn.Module, name: str | None, combine: Combine | None) -> Level | None:
    if combine is None or name is None:
        return None
    return ByRows() if combine.dense else LEVELS[name](model)


def _combine(weighting: Weighting, scale_heads: bool | None) -> Combine | None:
    if isinstance(weighting, GramianWeighting):
        scaled = weighting.scale_heads if scale_heads is None else scale_heads
        return (ByBatches if weighting.batches_per_step > 1 else ByGramian)(weighting, scaled)
    if isinstance(weighting, JacobianAggregator):
        return ByJacobian(weighting, scale_heads is not False)
    return None
