"""Gradients with their conflicts projected away."""

import torch

from polytask.weighting._base import GramianSolution, GramianStep, GramianWeighting
from polytask.weighting._random_stream import RandomStream
from polytask.weighting._surgery import random_order, turn


class PCGrad(GramianWeighting):
    r"""Projecting conflicting gradients: each task's gradient loses its component against another's.

    For each task, over the others in random order, starting from :math:`g_i' = g_i`:

    .. math:: g_i' \leftarrow g_i' - \frac{\min(0,\, g_i'^\top g_j)}{\|g_j\|^2} \, g_j, \qquad
              d = \sum_i g_i'.

    The weights sum to the number of tasks if no gradients conflict, and to more otherwise.

    Args:
        seed: Seed of the random orders; None means the seed of torch.

    Shape:
        - gramian: ``(tasks, tasks)``.
        - returns: ``(tasks,)``.

    Raises:
        UserError: If the seed is not a whole number.

    Example:
        >>> import torch
        >>> PCGrad(seed=0)(torch.tensor([[1.0, -1.0], [-1.0, 4.0]]))
        tensor([2.0000, 1.2500])

    When:
        Tasks conflict now and then, and the sum of the losses stays the aim.

    Reference:
        Yu, Kumar, Gupta, Levine, Hausman, Finn. Gradient Surgery for Multi-Task Learning. NeurIPS
        2020, algorithm 1.

    Deviations:
        None.
    """

    def __init__(self, seed: int | None = None) -> None:
        super().__init__()
        self.draws = RandomStream(seed)

    def solve(self, step: GramianStep) -> GramianSolution:
        """The sum of the projected gradients: a target of 0 for every cosine."""
        order = random_order(len(step.gramian), self.draws.step(), step.gramian.device)
        coefficients, _ = turn(step.gramian, order, torch.zeros_like(step.gramian))
        return GramianSolution(coefficients.sum(0))
