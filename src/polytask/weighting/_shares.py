"""Weights on the simplex that are kept for each task."""

from collections.abc import Callable

import torch
from torch import Tensor, nn

from polytask.weighting._base import GramianStep
from polytask.weighting._state import pick, put


class Shares(nn.Module):
    """Weights that sum to 1 over all tasks; equal at first.

    The weights of the present tasks keep their sum, so that absent tasks keep their weights.

    Args:
        tasks: The number of tasks.

    Shape:
        - value: ``(tasks,)``.
    """

    value: Tensor

    def __init__(self, tasks: int) -> None:
        super().__init__()
        self.register_buffer("value", torch.full((tasks,), 1 / tasks))

    def move(self, change: Callable[[Tensor], Tensor], step: GramianStep) -> Tensor:
        """The present tasks' weights after a change.

        Args:
            change: A function from weights of the present tasks that sum to 1 to others that do.
            step: The step.
        """
        held = pick(self.value, step.indices).to(step.gramian)
        mass = held.sum()
        equal = torch.full_like(held, 1 / len(held))
        moved = mass * change(torch.where(mass > 0, held / mass, equal))
        put(self.value, step.indices, moved)
        return moved
