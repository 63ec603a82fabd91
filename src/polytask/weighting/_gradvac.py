"""Gradients turned towards their usual cosines."""

from collections.abc import Iterable

import torch
from torch import Tensor

from polytask.weighting._base import GramianSolution, GramianStep, GramianWeighting
from polytask.weighting._random_stream import RandomStream
from polytask.weighting._state import pick
from polytask.weighting._surgery import random_order, turn
from polytask.weighting._values import check_number


class GradVac(GramianWeighting):
    r"""Gradient vaccine: PCGrad with a target for each pair's cosine that follows the cosines seen.

    For each task, over the others in random order, if the cosine φ of :math:`g_i'` and
    :math:`g_j` is below the pair's target τ:

    .. math:: g_i' \leftarrow g_i' + \frac{\|g_i'\| (\tau \sqrt{1-\varphi^2} - \varphi \sqrt{1-\tau^2})}
              {\|g_j\| \sqrt{1-\tau^2}} \, g_j, \qquad
              \tau \leftarrow (1 - \beta)\, \tau + \beta \varphi,

    which brings the cosine to τ; the update is the sum of the turned gradients. The weights sum to
    the number of tasks if all cosines are above their targets, and to more otherwise.

    Args:
        beta: Share of the new cosine in the target, no unit, from 0 to 1. With 0 it is PCGrad.
        seed: Seed of the random orders; None means the seed of torch.

    Shape:
        - gramian: ``(tasks, tasks)``.
        - returns: ``(tasks,)``.

    Raises:
        UserError: If beta is not from 0 to 1, or the seed is not an integer.

    Example:
        >>> import torch
        >>> weighting, gramian = GradVac(beta=0.5, seed=0), torch.tensor([[1.0, 0.6], [0.6, 1.0]])
        >>> weighting(gramian), weighting(torch.eye(2))
        (tensor([1., 1.]), tensor([1.3145, 1.3145]))

    When:
        As `PCGrad`, if tasks that usually agree should not drift apart either.

    Reference:
        Wang, Tsvetkov, Firat, Cao. Gradient Vaccine: Investigating and Improving Multi-task
        Optimization in Massively Multilingual Models. ICLR 2021, equations 2 and 3 and algorithm 1.

    Deviations:
        One group of parameters, not one per layer. The default for beta, 0.01, is what a public
        reimplementation of the paper's translation runs gives as the paper's; LibMTL and TorchJD have
        0.5. With 0.01 a target is the mean of about a hundred steps. A target is at most 1 - 1e-6, so
        that equal gradients do not divide by 0; TorchJD adds 1e-8 to the norms it divides by, which changes
        the result for gradients of that size.
    """

    targets: Tensor

    def __init__(self, beta: float = 0.01, seed: int | None = None) -> None:
        super().__init__()
        self.beta = check_number(beta, "GradVac.beta", least=0, most=1)
        self.draws = RandomStream(seed)

    def setup(self, names: Iterable[str]) -> None:
        """Begin with targets of 0."""
        super().setup(names)
        self.register_buffer("targets", torch.zeros(len(self.names), len(self.names)))

    def solve(self, step: GramianStep) -> GramianSolution:
        """The sum of the turned gradients."""
        order = random_order(len(step.gramian), self.draws.step(), step.gramian.device)
        rows = pick(self.targets, step.indices)
        targets = (rows if step.indices is None else rows[:, step.indices]).to(step.gramian)
        coefficients, met = turn(step.gramian, order, targets)
        self._remember(targets.lerp(met, self.beta).to(self.targets), step.indices)
        return GramianSolution(coefficients.sum(0))

    def _remember(self, targets: Tensor, indices: list[int] | None) -> None:
        if indices is None:
            self.targets.copy_(targets)
        else:
            present = torch.tensor(indices, device=targets.device)
            self.targets[present[:, None], present] = targets

    def extra_repr(self) -> str:
        """The share of the new cosine."""
        return f"beta={self.beta:g}"
