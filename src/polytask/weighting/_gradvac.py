"""Gradients turned towards their usual cosines."""

from collections.abc import Iterable

import torch
from torch import Tensor

from polytask._checks import check_number
from polytask.weighting._base import GramianWeighting, Solution, Step
from polytask.weighting._draws import Draws
from polytask.weighting._state import pick
from polytask.weighting._surgery import random_order, turn


class GradVac(GramianWeighting):
    r"""Gradient vaccine: PCGrad with a target for each pair's cosine that follows the cosines seen.

    For each task, over the others in random order, where the cosine φ of :math:`g_i'` and
    :math:`g_j` is below the pair's target τ:

    .. math:: g_i' \leftarrow g_i' + \frac{\|g_i'\| (\tau \sqrt{1-\varphi^2} - \varphi \sqrt{1-\tau^2})}
              {\|g_j\| \sqrt{1-\tau^2}} \, g_j, \qquad
              \tau \leftarrow (1 - \beta)\, \tau + \beta \varphi,

    which brings the cosine to τ; the update is the sum of the turned gradients. The weights sum to
    the number of tasks where all cosines are above their targets, and to more elsewhere.

    Args:
        beta: Share of the new cosine in the target, no unit, from 0 to 1. With 0 it is PCGrad.
        seed: Where the draws of the orders begin; the seed that torch was given, where None.

    Shape:
        - gramian: ``(tasks, tasks)``.
        - returns: ``(tasks,)``.

    Raises:
        UserError: Where beta is not from 0 to 1, or the seed is not a whole number.

    Example:
        >>> import torch
        >>> weighting, gramian = GradVac(beta=0.5, seed=0), torch.tensor([[1.0, 0.6], [0.6, 1.0]])
        >>> weighting(gramian), weighting(torch.eye(2))
        (tensor([1., 1.]), tensor([1.3145, 1.3145]))

    When:
        As `PCGrad`, where tasks that usually agree should not drift apart either.

    Reference:
        Wang, Tsvetkov, Firat, Cao. Gradient Vaccine: Investigating and Improving Multi-task
        Optimization in Massively Multilingual Models. ICLR 2021, equations 2 and 3 and algorithm 1.

    Deviations:
        One group of parameters, not one per layer. The default for beta, 0.01, is what a public
        reimplementation of the paper's translation runs gives as the paper's; LibMTL and TorchJD have
        0.5. With 0.01 a target is the mean of about a hundred steps. A target is at most 1 - 1e-6, so
        that equal gradients do not divide by 0; TorchJD adds 1e-8 to the norms it divides by, which
        gradients of that size feel.
    """

    targets: Tensor

    def __init__(self, beta: float = 0.01, seed: int | None = None) -> None:
        super().__init__()
        self.beta = check_number(beta, "GradVac.beta", least=0, most=1)
        self.draws = Draws(seed)

    def setup(self, names: Iterable[str]) -> None:
        """Begin with targets of 0."""
        super().setup(names)
        self.register_buffer("targets", torch.zeros(len(self.names), len(self.names)))

    def solve(self, step: Step) -> Solution:
        """The sum of the turned gradients."""
        order = random_order(len(step.gramian), self.draws.step(), step.gramian.device)
        rows = pick(self.targets, step.columns)
        targets = (rows if step.columns is None else rows[:, step.columns]).to(step.gramian)
        coefficients, met = turn(step.gramian, order, targets)
        self._remember(targets.lerp(met, self.beta).to(self.targets), step.columns)
        return Solution(coefficients.sum(0))

    def _remember(self, targets: Tensor, columns: list[int] | None) -> None:
        if columns is None:
            self.targets.copy_(targets)
        else:
            places = torch.tensor(columns, device=targets.device)
            self.targets[places[:, None], places] = targets

    def extra_repr(self) -> str:
        """The share of the new."""
        return f"beta={self.beta:g}"
