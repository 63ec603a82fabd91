"""The mean of the gradients' projections on the cone that harms no task."""

from polytask._linalg import cosines, divide, nonnegative, shrink
from polytask.weighting._base import GramianSolution, GramianStep, GramianWeighting


class UPGrad(GramianWeighting):
    r"""Unconflicting projection of gradients: each is projected first, and then they are averaged.

    .. math:: w = \frac1T \sum_i \arg\min_{v \ge e_i} v^\top G v,

    where :math:`J^\top v` of the i-th problem is the vector nearest to :math:`g_i` that makes no
    task worse. So neither does the update: :math:`J d \ge 0`. The weights are the paper's. They sum to 1
    if no gradients conflict, and to more otherwise. For two tasks the update is half of that of PCGrad.

    Shape:
        - gramian: ``(tasks, tasks)``.
        - returns: ``(tasks,)``.

    Example:
        >>> import torch
        >>> UPGrad()(torch.tensor([[1.0, -1.0], [-1.0, 4.0]]))
        tensor([1.0000, 0.6250])

    When:
        No task may be harmed in any step, and long gradients should count for more.

    Reference:
        Quinton, Rey. Jacobian Descent for Multi-Objective Optimization. 2024, equations 3 and 4 and
        proposition 1.

    Deviations:
        The projections are exact; the authors' package adds 1e-4 of the Gramian's trace to its
        diagonal.
    """

    solves_on_host = True

    def solve(self, step: GramianStep) -> GramianSolution:
        """The mean of the projections."""
        norms, cosine = cosines(step.gramian)
        cosine = shrink(cosine, step.rounding)
        # In units of each task's norm the problems depend on the cosines alone.
        excess, found = nonnegative(cosine, -cosine)
        weights = 1 + divide((norms[:, None] * excess).sum(0), norms)
        return GramianSolution(weights / len(norms), found.all())
