"""The Gramian of a step for those who look on: that which the engine takes, or one taken beside it."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor
from torch.autograd.graph import GradientEdge, Node

from polytask._errors import UserError
from polytask.gradients._compiled import repeatable
from polytask.gradients._levels import Level, Measured, MeasuredRows, explicit
from polytask.gradients._losses import Step
from polytask.gradients._rows import Pairs, Rows, flat, product
from polytask.gradients._window import Window
from polytask.weighting._base import Gradients


@dataclass(frozen=True)
class Seen:
    """What is shown of one optimizer step, without a loss scale.

    Attributes:
        names: The present tasks.
        losses: Their losses, ``(tasks,)``.
        shared: The shared parameters.
        gramian: Inner products of the tasks' gradients, ``(tasks, tasks)``.
    """

    names: tuple[str, ...]
    losses: Tensor
    shared: Sequence[Tensor]
    gramian: Tensor
    _rows: Rows | None = field(repr=False)
    _scale: float | Tensor = 1.0

    def gramian_of(self, parameters: Sequence[Tensor]) -> Tensor:
        """The Gramian by some shared parameters; by ``parameters`` only.

        Args:
            parameters: Whole layers.
        """
        assert self._rows is not None
        return self._rows.gramian(parameters) / self._scale**2

    def gradient(self, name: str) -> Pairs:
        """The shared parameters with one task's gradients; by ``parameters`` only.

        Args:
            name: The task.
        """
        assert self._rows is not None
        chosen = self.losses.new_tensor([float(own == name) for own in self.names])
        return self._rows.combine(chosen / self._scale)


@dataclass
class Watcher:
    """Somebody who looks on.

    Attributes:
        level: What the Gramian is made of.
        look: Called with what is seen of a step.
        due: Whether the next step is looked at.
    """

    level: Gradients
    look: Callable[[Seen], None]
    due: bool = False


class Watch:
    """All who look on at one engine.

    Args:
        own: What the engine measures itself; None where it measures nothing.
        level: How it does so.
    """

    def __init__(self, own: Gradients | None, level: Level | None) -> None:
        self.own, self.level = own, level
        self.watchers: list[Watcher] = []
        self._windows: dict[Gradients, Window] = {}

    @property
    def due(self) -> bool:
        """Whether anybody looks at the next step."""
        return any(watcher.due for watcher in self.watchers)

    def taken(self, step: Step, measured: Measured, shared: Sequence[Tensor]) -> None:
        """Show what the engine has measured.

        Args:
            step: The step.
            measured: Its gradients.
            shared: The shared parameters.
        """
        if self.own is not None and self._wanted(self.own):
            self._show(self.own, step, shared, measured.gramian(), measured.whole)

    def beside(
        self, step: Step, shared: Sequence[Tensor], last: bool, held: bool, order: Sequence[str]
    ) -> None:
        """Measure what is wanted and the engine does not measure in this step; keeps the graph.

        Args:
            step: The step.
            shared: The shared parameters.
            last: Whether the optimizer steps next.
            held: Whether the engine measures nothing.
            order: All tasks, in order.
        """
        for level in dict.fromkeys(watcher.level for watcher in self.watchers if watcher.due):
            if not shared or (level == self.own and not held):
                continue
            if level == "representation":
                if step.here_names:
                    self._show(level, step, shared, parting(step), None)
                continue
            within = self.level.within(step, shared) if self.level and level == "last_shared" else None
            rows, window = explicit(step, shared, own=False), self._windows.setdefault(level, Window())
            if last and not window.begun:
                self._show_rows(level, step, rows, within)
                continue
            window.add(step, rows, within)
            if last:
                self._show_rows(level, *window.close(order))

    def finish(self, order: Sequence[str]) -> None:
        """Show what was added up, where the last batch of a step had no label.

        Args:
            order: All tasks, in order.
        """
        for level, window in self._windows.items():
            if window.begun:
                self._show_rows(level, *window.close(order))

    def _show_rows(self, level: Gradients, step: Step, rows: Rows, by: Sequence[Tensor] | None) -> None:
        measured = MeasuredRows(rows.over(step.ranks), by)
        self._show(level, step, rows.parameters, measured.gramian(), measured.whole)

    def _wanted(self, level: Gradients) -> list[Watcher]:
        return [watcher for watcher in self.watchers if watcher.due and watcher.level == level]

    def _show(
        self, level: Gradients, step: Step, shared: Sequence[Tensor], gramian: Tensor, rows: Rows | None
    ) -> None:
        seen = Seen(step.names, step.losses, shared, gramian / step.scale**2, rows, step.scale)
        for watcher in self._wanted(level):
            watcher.look(seen)


def parting(step: Step) -> Tensor:
    """The Gramian by the tensors at which the graphs of the tasks part, ``(tasks, tasks)``; keeps the graph.

    Args:
        step: The step.

    Raises:
        UserError: Where the losses of two tasks are one tensor.
    """
    roots, masks = step.roots, step.graph.masks
    if any(_joint(masks[edge.node]) for edge in roots.edges):
        rule = "'representation' needs a loss with a graph of its own for each task"
        raise UserError("level", rule, "one for several", "Use level='parameters'")
    found: dict[tuple[Node, int], Tensor | GradientEdge] = {}
    for node in (node for node, mask in masks.items() if not _joint(mask)):
        for child, place in node.next_functions:
            if child is not None and _joint(masks[child]):
                found[child, place] = getattr(child, "variable", GradientEdge(child, place))
    gradients: list[dict[tuple[Node, int], Tensor | None]] = []
    for bit, edge in enumerate(roots.edges):
        mine = {key: value for key, value in found.items() if masks[key[0]] >> bit & 1}
        given = [roots.factors[bit]]
        with repeatable():
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
