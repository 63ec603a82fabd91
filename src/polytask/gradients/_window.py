"""Rows of several batches, added up before anything is made of them."""

from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor

from polytask.gradients._backward_step import BackwardStep, Roots
from polytask.gradients._jacobian import Rows


class Window:
    """Rows and losses of the batches since the last optimizer step.

    Rows are added up before their products are computed, so that the Gramian is that of the accumulated
    gradients. They are those of the mean over all labels if the numbers of labels are known, and those of
    the sum otherwise.
    """

    def __init__(self) -> None:
        self.forget()

    def forget(self) -> None:
        """Discard the batches."""
        self._rows: Rows | None = None
        self._step: BackwardStep | None = None
        self._by: Sequence[Tensor] | None = None
        self._losses: dict[str, Tensor] = {}
        self._counts: dict[str, Tensor] = {}

    @property
    def begun(self) -> bool:
        """Whether a batch was added."""
        return self._rows is not None

    def add(self, step: BackwardStep, rows: Rows, by: Sequence[Tensor] | None) -> None:
        """Add a batch.

        Args:
            step: Its tasks and losses.
            rows: Its rows, all explicit.
            by: The parameters whose rows make the Gramian; None means all.
        """
        losses = step.losses
        if step.counts is not None:
            rows, losses = rows.times(step.counts), losses * step.counts
            _add_up(self._counts, rows.names, step.counts)
        _add_up(self._losses, rows.names, losses)
        self._rows = rows if self._rows is None else _sum(self._rows, rows)
        # Without the graph, which would keep the batch's activations alive.
        self._step, self._by = replace(step, roots=Roots([], ())), by

    def close(self, order: Sequence[str]) -> tuple[BackwardStep, Rows, Sequence[Tensor] | None]:
        """A step for all batches, their rows, and the parameters of the Gramian; begins a new window.

        Args:
            order: All tasks, in order.
        """
        rows, step, by = self._rows, self._step, self._by
        assert rows is not None
        assert step is not None
        names = tuple(name for name in order if name in rows.names)
        rows = rows.embed(names, rows.parameters)
        losses = torch.stack([self._losses[name] for name in names])
        if self._counts:
            counts = torch.stack([self._counts[name] for name in names])
            rows, losses = rows.times(1 / counts), losses / counts
        self.forget()
        return replace(step, names=names, losses=losses, here=None, counts=None), rows, by


def _add_up(sums: dict[str, Tensor], names: Sequence[str], values: Tensor) -> None:
    for name, value in zip(names, values.unbind(), strict=True):
        sums[name] = sums[name] + value if name in sums else value


def _sum(one: Rows, other: Rows) -> Rows:
    names = tuple(dict.fromkeys((*one.names, *other.names)))
    return one.embed(names, other.parameters).plus(other.embed(names, other.parameters))
