"""Observers of an engine's steps: they get the Gramian that the engine measures, or one measured for them."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor
from torch.autograd.graph import GradientEdge, Node

from polytask._errors import UserError
from polytask.gradients._backward_step import BackwardStep
from polytask.gradients._inner_products import product
from polytask.gradients._jacobian import Pairs, Rows, flat
from polytask.gradients._levels import Level, Measured, MeasuredRows, explicit
from polytask.gradients._window import Window
from polytask.weighting._base import Gradients


@dataclass(frozen=True)
class ObservedStep:
    """What an observer receives of one optimizer step, without a loss scale.

    Attributes:
        names: The present tasks.
        losses: Their losses, ``(tasks,)``.
        shared: The shared parameters.
        gramian: Inner products of the tasks' gradients, ``(tasks, tasks)``.

    Example:
        >>> from polytask.gradients import Engine
        >>> from polytask.models import MLP, MultiHead
        >>> from polytask.weighting import UPGrad
        >>> heads = {"a": torch.nn.Linear(8, 1), "b": torch.nn.Linear(8, 1)}
        >>> model = MultiHead(MLP(4, [8], 8), heads)
        >>> engine, steps = Engine(model, UPGrad()), []
        >>> observer = engine.observe("parameters", steps.append)
        >>> observer.due = True
        >>> outputs = model(torch.randn(16, 4))
        >>> engine.backward({task: output.square().mean() for task, output in outputs.items()})
        >>> steps[0].names, steps[0].gramian.shape
        (('a', 'b'), torch.Size([2, 2]))
    """

    names: tuple[str, ...]
    losses: Tensor
    shared: Sequence[Tensor]
    gramian: Tensor
    _rows: Rows | None = field(repr=False)
    _scale: float | Tensor = 1.0

    def gramian_of(self, parameters: Sequence[Tensor]) -> Tensor:
        """The Gramian by some shared parameters; for the level ``parameters`` only.

        Args:
            parameters: All parameters of one or more layers.
        """
        assert self._rows is not None
        return self._rows.gramian(parameters) / self._scale**2

    def gradient(self, name: str) -> Pairs:
        """The shared parameters with one task's gradients; for the level ``parameters`` only.

        Args:
            name: The task.
        """
        assert self._rows is not None
        chosen = self.losses.new_tensor([float(own == name) for own in self.names])
        return self._rows.combine(chosen / self._scale)


@dataclass
class StepObserver:
    """What `Engine.observe` returns: a request for the Gramian of steps.

    Attributes:
        level: What the Gramian is made of.
        callback: Called with each `ObservedStep`.
        due: Whether the next step is observed; set it before the step.
    """

    level: Gradients
    callback: Callable[[ObservedStep], None]
    due: bool = False


class Observers:
    """All observers of one engine.

    Args:
        own: What the engine measures itself; None if it measures nothing.
        level: How it does so.
    """

    def __init__(self, own: Gradients | None, level: Level | None) -> None:
        self.own, self.level = own, level
        self.registered: list[StepObserver] = []
        self._windows: dict[Gradients, Window] = {}

    @property
    def due(self) -> bool:
        """Whether an observer is due in the next step."""
        return any(observer.due for observer in self.registered)

    def notify(self, step: BackwardStep, measured: Measured, shared: Sequence[Tensor]) -> None:
        """Pass on what the engine has measured for its weighting.

        Args:
            step: The step.
            measured: Its gradients.
            shared: The shared parameters.
        """
        if self.own is not None and self._due(self.own):
            self._call(self.own, step, shared, measured.gramian(), measured.whole)

    def measure(
        self, step: BackwardStep, shared: Sequence[Tensor], last: bool, kept: bool, order: Sequence[str]
    ) -> None:
        """Measure what observers need and the engine does not measure in this step; keeps the graph.

        ===================== ================ ========================= ==================================
        level                 measured by the  calls of the step         what is done
                              engine
        ===================== ================ ========================= ==================================
        any                   yes              any                       nothing: `notify` passes it on
        ``representation``    no               any                       Gramian at the tensors at which
                                                                         the tasks' graphs part
        ``parameters``,       no               one                       Gramian from explicit rows
        ``last_shared``
        ``parameters``,       no               several                   rows are added up; their Gramian
        ``last_shared``                                                  in the last call
        ===================== ================ ========================= ==================================

        Nothing is done if no parameter is known to be shared.

        Args:
            step: The step.
            shared: The shared parameters.
            last: Whether the optimizer steps next.
            kept: Whether the engine measures nothing.
            order: All tasks, in order.
        """
        if not shared:
            return
        for level in dict.fromkeys(observer.level for observer in self.registered if observer.due):
            if level == self.own and not kept:
                continue
            if level == "representation":
                if step.here_names:
                    self._call(level, step, shared, gramian_at_parting(step), None)
                continue
            within = self.level.within(step, shared) if self.level and level == "last_shared" else None
            rows, window = explicit(step, shared, own=False), self._windows.setdefault(level, Window())
            if last and not window.begun:
                self._call_with_rows(level, step, rows, within)
                continue
            window.add(step, rows, within)
            if last:
                self._call_with_rows(level, *window.close(order))

    def finish(self, order: Sequence[str]) -> None:
        """Pass on what was added up if the last batch of a step had no label.

        Args:
            order: All tasks, in order.
        """
        for level, window in self._windows.items():
            if window.begun:
                self._call_with_rows(level, *window.close(order))

    def _call_with_rows(
        self, level: Gradients, step: BackwardStep, rows: Rows, by: Sequence[Tensor] | None
    ) -> None:
        measured = MeasuredRows(rows.over(step.ranks), by)
        self._call(level, step, rows.parameters, measured.gramian(), measured.whole)

    def _due(self, level: Gradients) -> list[StepObserver]:
        return [observer for observer in self.registered if observer.due and observer.level == level]

    def _call(
        self,
        level: Gradients,
        step: BackwardStep,
        shared: Sequence[Tensor],
        gramian: Tensor,
        rows: Rows | None,
    ) -> None:
        observed = ObservedStep(step.names, step.losses, shared, gramian / step.scale**2, rows, step.scale)
        for observer in self._due(level):
            observer.callback(observed)


def gramian_at_parting(step: BackwardStep) -> Tensor:
    """The Gramian by the tensors at which the tasks' graphs part, ``(tasks, tasks)``; keeps the graph.

    Args:
        step: The step.

    Raises:
        UserError: If the losses of two tasks are one tensor.
    """
    roots, masks = step.roots, step.graph.masks
    if any(_joint(masks[edge.node]) for edge in roots.edges):
        rule = "'representation' requires a loss with its own graph for each task"
        raise UserError("level", rule, "one graph for several tasks", "Use level='parameters'")
    found: dict[tuple[Node, int], Tensor | GradientEdge] = {}
    for node in (node for node, mask in masks.items() if not _joint(mask)):
        for child, output in node.next_functions:
            if child is not None and _joint(masks[child]):
                found[child, output] = getattr(child, "variable", GradientEdge(child, output))
    gradients: list[dict[tuple[Node, int], Tensor | None]] = []
    for bit, edge in enumerate(roots.edges):
        mine = {key: value for key, value in found.items() if masks[key[0]] >> bit & 1}
        given = [roots.factors[bit]]
        inputs: list[Any] = list(mine.values())
        own = torch.autograd.grad([edge], inputs, given, True) if mine else ()
        gradients.append(dict(zip(mine, own, strict=True)))
    total = torch.zeros(len(gradients), len(gradients), device=step.losses.device)
    for key in found:
        reached = [gradient[key] for gradient in gradients if gradient.get(key) is not None]
        if reached:
            like = reached[0]
            assert like is not None
            rows = torch.stack([flat(like, gradient.get(key)) for gradient in gradients])
            total = total + product(rows.to(torch.promote_types(rows.dtype, torch.float32)))
    return total


def _joint(mask: int) -> bool:
    """Whether it has the bits of several tasks."""
    return bool(mask & (mask - 1))
