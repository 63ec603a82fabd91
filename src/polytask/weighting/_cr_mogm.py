"""Weights smoothed over steps."""

from collections.abc import Iterable

import torch
from torch import Tensor

from polytask._errors import UserError
from polytask.weighting._base import GramianSolution, GramianStep, GramianWeighting
from polytask.weighting._state import pick, put
from polytask.weighting._values import check_number


class CRMOGM(GramianWeighting):
    r"""Correlation-reduced gradient manipulation: another method's weights, averaged over steps.

    .. math:: \bar w^{(k)} = \gamma \, \bar w^{(k-1)} + (1 - \gamma) \, w^{(k)},

    which makes the weights almost independent of the batch whose gradients they combine. The sum of the
    weights is that of the other method. The other method also decides what is required, and whether heads
    are scaled by the weights.

    Args:
        weighting: The method whose weights are averaged.
        decay: γ, no unit, from 0 (no averaging) to 1 (the first weights are kept).

    Shape:
        - gramian: ``(tasks, tasks)``.
        - returns: ``(tasks,)``.

    Raises:
        UserError: If the other method is not a `GramianWeighting`, or the decay is out of range.

    Example:
        >>> import torch
        >>> from polytask.weighting import MGDA
        >>> weighting = CRMOGM(MGDA(), decay=0.5)
        >>> weighting(torch.tensor([[1.0, 0.0], [0.0, 1.0]]))
        tensor([0.5000, 0.5000])
        >>> weighting(torch.tensor([[1.0, 0.0], [0.0, 4.0]]))
        tensor([0.6500, 0.3500])

    When:
        The weights of a method jump from batch to batch.

    Reference:
        Zhou, Zhang, Jiang, Zhong, Gu, Zhu. On the Convergence of Stochastic Multi-Objective Gradient
        Manipulation and Beyond. NeurIPS 2022, algorithm 1.

    Deviations:
        The average begins with a task's first weight, not with 1/T. The decay is constant and does not
        depend on the learning rate.
    """

    smoothed: Tensor

    def __init__(self, weighting: GramianWeighting, decay: float = 0.9) -> None:
        super().__init__()
        if not isinstance(weighting, GramianWeighting):
            raise UserError(
                "CRMOGM.weighting",
                "must be a GramianWeighting",
                type(weighting).__name__,
                "Pass for example MGDA()",
            )
        self.decay = check_number(decay, "CRMOGM.decay", least=0, most=1)
        self.weighting, self.unsolved = weighting, weighting.unsolved
        self.gradients = weighting.gradients
        self.batches_per_step = weighting.batches_per_step
        self.solves_on_host = weighting.solves_on_host
        self.scale_heads, self.needs_losses = weighting.scale_heads, weighting.needs_losses

    def setup(self, names: Iterable[str]) -> None:
        """Begin without an average."""
        super().setup(names)
        self.weighting.setup(self.names)
        self.register_buffer("smoothed", torch.full((len(self.names),), torch.nan))

    def solve(self, step: GramianStep) -> GramianSolution:
        """The average, including the new weights."""
        weights, found = self.weighting.solve(step)
        held = pick(self.smoothed, step.indices).to(weights.dtype)
        weights = weights.to(held.device)
        weights = torch.where(held.isnan(), weights, weights.lerp(held, self.decay))
        put(self.smoothed, step.indices, weights)
        return GramianSolution(weights, found)

    def extra_repr(self) -> str:
        """The decay."""
        return f"decay={self.decay:g}"
