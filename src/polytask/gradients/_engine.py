"""The engine: from several losses to ``.grad``."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from polytask._checks import check_integer
from polytask._distributed import Ranks
from polytask._errors import UserError, hint
from polytask.gradients._accumulate import accumulate
from polytask.gradients._combine import ByBatches, ByGramian, ByJacobian, Combine
from polytask.gradients._levels import LEVELS, ByRows, Level, Measured, MeasuredRows, explicit, weighted
from polytask.gradients._losses import Losses, Step, by_name
from polytask.gradients._rows import Pairs
from polytask.gradients._sharing import Sharing
from polytask.gradients._watch import Seen, Watch, Watcher
from polytask.gradients._window import Window
from polytask.weighting import GramianWeighting, JacobianAggregator, LossWeighting, Weighting
from polytask.weighting._base import Gradients


class Engine:
    r"""Fills ``.grad`` with the update of any weighting, in the place of ``loss.backward()``.

    With the tasks' gradients :math:`g_i` by the shared parameters, the rows of the Jacobian *J*, a
    `GramianWeighting` is given :math:`G = J J^\top` and the shared parameters' ``.grad`` grows by
    :math:`J^\top w`; a `JacobianAggregator` is given *J* and makes the update; a `LossWeighting`
    takes a plain backward. Parameters that one task alone reaches get that task's gradient.

    Nobody names the shared parameters: they are the `torch.nn.Parameter` that two tasks have reached
    so far, in the graphs of the steps. Where a task does not reach one of them, its row holds 0 there.
    Until every task was seen, steps in which nothing is known to be shared take the sum of the losses.
    Where there is one task in all, every parameter counts as shared.

    Make one engine for a model, before the first forward: it watches the model's layers.

    Args:
        model: The model.
        weighting: How the tasks are balanced.
        level: What the Gramian is made of: all shared ``parameters``, exactly; the ``representation``
            that the heads of ``model.heads`` are given, which costs little more than a plain backward;
            the ``last_shared`` layer's parameters. The method's own where None. The update is that of
            the weights in each case.
        refresh_every: Weights are made anew every so many steps, and kept in between, where no task's
            own gradient is computed.
        scale_heads: Whether the parameters of one task alone see its weight too. The method's own where
            None.

    Raises:
        UserError: Where the level, the model and the weighting do not go together.

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
    ) -> None:
        self.weighting = weighting
        self.refresh_every = refresh_every
        self.scale_heads = scale_heads
        self._check(level)
        self._combine = _combine(weighting, scale_heads)
        self.level = _level_name(level or weighting.gradients, self._combine)
        self._level = _level(model, self.level, self._combine)
        self._sharing = Sharing(model)
        self._window = Window()
        self._watch = Watch(self.level, self._level)
        self._steps = 0
        self.ranks: Ranks | None = None

    @property
    def weights(self) -> dict[str, Tensor]:
        """The weights of the last step that made some, by task; empty for other methods than Gramian ones."""
        return {} if self._combine is None else self._combine.weights

    def _check(self, level: str | None) -> None:
        method = type(self.weighting).__name__
        if level is not None and level not in LEVELS:
            raise UserError("level", f"is one of {', '.join(LEVELS)}", repr(level), hint(str(level), LEVELS))
        every = self.refresh_every = check_integer(self.refresh_every, "refresh_every", 1)
        if isinstance(self.weighting, LossWeighting):
            given = {"level": level is not None, "refresh_every": every > 1}
            given["scale_heads"] = self.scale_heads is not None
            for name in (name for name, wrong in given.items() if wrong):
                raise UserError(name, "is for weightings by gradients", method, "Leave it out")
        if isinstance(self.weighting, JacobianAggregator):
            if level not in (None, "parameters"):
                raise UserError("level", f"is 'parameters' for {method}", repr(level), "Leave it out")
            if every > 1:
                raise UserError("refresh_every", "is for methods with weights", method, "Leave it out")
        batches = self.weighting.batches_per_step
        if batches > 1 and (level not in (None, "parameters") or every > 1):
            found = f"level={level!r}, refresh_every={every}"
            rule = f"{method} takes {batches} batches a step, by all parameters"
            raise UserError("Engine", rule, found, "Leave level and refresh_every out")

    def backward(
        self,
        losses: Losses,
        *,
        names: Sequence[str] | None = None,
        scale: float | Tensor = 1.0,
        last: bool = True,
        calls: int = 1,
    ) -> None:
        """Add the update to ``.grad``; frees the graph.

        Where a method takes several batches in a step, ``.grad`` is filled by every so many calls: step
        the optimizer then.

        Args:
            losses: Losses of the present tasks, scalars by task; or ``(tasks,)`` made by `torch.stack`;
                or `polytask.losses.TaskLosses`, as ``criterion.measurement.measure`` returns.
            names: Which tasks a tensor's losses belong to; all tasks where None.
            scale: Factor of the losses, a loss scaler's: ``.grad`` is that of scaled losses, and the
                weights are not changed by it. Where scaled gradients are not finite, so is ``.grad``, and
                the weighting is not asked. Another value than 1.0 costs one synchronisation.
            last: Whether the optimizer steps next. Gradients of the calls before it are added up, and
                weights made of their sum; of `TaskLosses` they are those of the mean over all labels.
            calls: Of how many calls a step's mean is made, where weights are kept from an earlier step.

        Raises:
            UserError: Where the losses do not fit, no parameter is shared, or a task's loss does not go
                through its head's representation.
            RunError: On the CPU without ``deferred``, where a task's gradient is not finite.
        """
        combine, level = self._combine, self._level
        if combine is None or level is None:
            present, values = by_name(losses, self.weighting, names)
            self.show(losses, names=names, scale=scale, last=last)
            (self.weighting(torch.stack(values), present) * scale).backward()
            return
        if not last and not level.windows:
            raise UserError("last", "gradients by the representation are not added up", "last=False")
        step = Step.of(losses, self.weighting, names, scale, self.ranks)
        # Within autocast, products of gradients would be rounded to half precision.
        with torch.autocast(step.losses.device.type, enabled=False):
            accumulate(self._pairs(step, combine, level, last, calls))
        level.forget()
        self._steps += last

    def _pairs(self, step: Step, combine: Combine, level: Level, last: bool, calls: int) -> Pairs:
        # In a window, batches to come may have any task, and all of them are held or none.
        needed = self.weighting.names if calls > 1 else step.names
        held = self._steps % self.refresh_every > 0 and combine.weights.keys() >= set(needed)
        shared = self._shared(step, held or level.walks or self._watch.due)
        self._watch.beside(step, shared, last, held, self.weighting.names)
        alone = last and not self._window.begun
        if alone and not shared:
            return weighted(step, shared, torch.ones_like(step.losses), True)
        if held:
            weights = torch.stack([combine.weights[name] for name in step.names])
            return weighted(step, shared, weights / calls, combine.scale_heads, 1 / calls)
        if alone:
            return self._combined(combine, step, level.measure(step, shared), shared)
        self._window.add(step, explicit(step, shared), level.within(step, shared) if shared else None)
        return self._closed(combine) if last else []

    def _shared(self, step: Step, walk: bool) -> list[Tensor]:
        self._learn(step, walk)
        return self._sharing.shared(self.weighting.names)

    def _learn(self, step: Step, walk: bool) -> None:
        here = step.here_names
        if here and (walk or not self._sharing.knows(here)):
            self._sharing.learn(step.graph, here)
        if self.ranks is not None:
            self._sharing.agree(self.ranks)

    def _combined(self, combine: Combine, step: Step, measured: Measured, shared: Sequence[Tensor]) -> Pairs:
        self._watch.taken(step, measured, shared)
        return combine.pairs(step, measured)

    def _closed(self, combine: Combine) -> Pairs:
        step, rows, by = self._window.close(self.weighting.names)
        if not rows.parameters:
            return rows.heads(None)
        return self._combined(combine, step, MeasuredRows(rows.over(step.ranks), by), rows.parameters)

    def watch(self, level: Gradients, look: Callable[[Seen], None]) -> Watcher:
        """Have somebody look on at steps.

        Where the engine measures at this level, nothing is computed for it; else the gradients are taken
        beside the step, which costs a backward for each task (over the heads alone for the
        ``representation``).

        Args:
            level: What the Gramian is made of.
            look: Called in `backward` of a step for which the watcher is ``due``, before ``.grad`` is filled.
        """
        watcher = Watcher(level, look)
        self._watch.watchers.append(watcher)
        return watcher

    def unwatch(self, watcher: Watcher) -> None:
        """Let a watcher go.

        Args:
            watcher: What `watch` gave.
        """
        self._watch.watchers.remove(watcher)

    @property
    def watched(self) -> bool:
        """Whether anybody looks at the next step."""
        return self._watch.due

    def show(
        self,
        losses: Losses,
        *,
        names: Sequence[str] | None = None,
        scale: float | Tensor = 1.0,
        last: bool = True,
    ) -> None:
        """Let those look who are due, where the backward is not this engine's; keeps the graph.

        Args:
            losses: As for `backward`.
            names: As for `backward`.
            scale: As for `backward`.
            last: As for `backward`.
        """
        if self.watched:
            step = Step.of(losses, self.weighting, names, scale, self.ranks)
            self._learn(step, True)
            shared = self._sharing.found(self.weighting.names)
            self._watch.beside(step, shared, last, True, self.weighting.names)

    def sizes(self) -> tuple[int, dict[str, int]]:
        """How many parameters are shared, and how many one task alone has reached so far, by task."""
        names = self.weighting.names
        return sum(parameter.numel() for parameter in self._sharing.found(names)), self._sharing.own(names)

    def finish(self) -> None:
        """Fill ``.grad`` from the calls so far, where the last batch of a step had no label.

        Where a method takes several batches and has fewer, ``.grad`` stays as it is.
        """
        if self._combine is not None and self._window.begun:
            accumulate(self._closed(self._combine))
            self._steps += 1
        self._watch.finish(self.weighting.names)
        self.forget()

    def begin(self) -> None:
        """Let go of what an earlier forward left behind, where no `backward` followed it."""
        if self._level is not None:
            self._level.forget()

    def forget(self) -> None:
        """Let go of what was noted since the last optimizer step."""
        self._window.forget()
        if self._combine is not None:
            self._combine.forget()
        if self._level is not None:
            self._level.forget()

    @property
    def begun(self) -> bool:
        """Whether there were calls of `backward` since the optimizer stepped, to be added up."""
        return self._window.begun

    @property
    def accumulates(self) -> bool:
        """Whether gradients of several calls are added up."""
        return self._level is None or self._level.windows

    @property
    def measures(self) -> bool:
        """Whether the weighting needs gradients, which a plain backward does not give."""
        return self._combine is not None

    def state_dict(self) -> dict[str, Any]:
        """What was learned of the graph, the weights in use and the number of steps; plain data."""
        weights = {name: float(weight) for name, weight in self.weights.items()}
        return {"shared": self._sharing.saved(), "weights": weights, "steps": self._steps}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from a state, between two optimizer steps.

        Args:
            state: What `state_dict` gave.
        """
        self.forget()
        self._sharing.restore(state["shared"])
        like = next(iter(self._sharing.tasks))
        weights = {name: like.new_tensor(value) for name, value in state["weights"].items()}
        self.weights.clear()
        self.weights.update(weights)
        self._steps = state["steps"]


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
