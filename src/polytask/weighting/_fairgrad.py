"""Weights that share the gain fairly."""

import torch

from polytask._linalg import balance, cosines, divide
from polytask.weighting._base import GramianSolution, GramianStep, GramianWeighting
from polytask.weighting._values import check_number


class FairGrad(GramianWeighting):
    r"""Alpha-fair gains: the update that maximises the sum of :math:`(g_i^\top d)^{1-\alpha}/(1-\alpha)`.

    .. math:: G w = w^{-1/\alpha}, \qquad w > 0.

    With α = 1 it is Nash-MTL without its cut; towards 0 it becomes the sum of the losses, towards
    infinity the gains become equal. The weights are those of the equation, not normalised. A head's own
    parameters are scaled by the weights too.

    There are no such weights if a combination of the gradients is 0: no update helps all tasks.

    Args:
        alpha: How much fairness counts, no unit, above 0.

    Shape:
        - gramian: ``(tasks, tasks)``.
        - returns: ``(tasks,)``.

    Raises:
        UserError: If alpha is not above 0.

    Example:
        >>> import torch
        >>> FairGrad(alpha=1.0)(torch.tensor([[1.0, 0.0], [0.0, 4.0]]))
        tensor([1.0000, 0.5000])

    When:
        As `NashMTL`, with a choice between the sum and the worst task by alpha.

    Reference:
        Ban, Ji. Fair Resource Allocation in Multi-Task Learning. ICML 2024, equation 4 and
        algorithm 1.

    Deviations:
        Solved by Newton's method to a relative residual of 1e-7; the authors' code passes the equations to
        a least-squares solver that may return before it converges. If there is no solution, the weights are
        0 and a warning says so. The same holds if rounding leaves no solution, with alpha far from 1 and
        norms that differ by thousands. A task whose gradient is 0 has weight 0.
    """

    solves_on_host = True
    scale_heads = True
    unsolved = "no update helps every task, or none was found"

    def __init__(self, alpha: float = 1.0) -> None:
        super().__init__()
        self.alpha = check_number(alpha, "FairGrad.alpha", above=0)

    def solve(self, step: GramianStep) -> GramianSolution:
        """The solution of the equations, whose diagonal is brought near that of the right side."""
        norms, cosine = cosines(step.gramian)
        power = 1 / self.alpha
        present = norms > 0
        mean = torch.where(present, norms, 1.0).log().sum().div(present.sum().clamp(min=1)).exp()
        relative = torch.where(present, norms / mean, 1.0)
        scales = relative ** ((power - 1) / (power + 1))
        values, found = balance(cosine * torch.outer(scales, scales), scales**2, power)
        # With norms in units of their mean m, w is larger by m to the power 2 α / (1 + α).
        weights = divide(values * scales, relative) * mean ** (-2 / (1 + power))
        return GramianSolution(torch.where(present, weights, 0.0), found)

    def extra_repr(self) -> str:
        """The fairness."""
        return f"alpha={self.alpha:g}"
