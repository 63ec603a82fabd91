"""The update with equal projections on all gradients."""

import torch

from polytask._linalg import cosines, divide, spectrum
from polytask.weighting._base import GramianSolution, GramianStep, GramianWeighting


class IMTLG(GramianWeighting):
    r"""Impartial multi-task learning, gradient part: equal projections on every task's gradient.

    .. math:: w = \frac{G^{-1} n}{1^\top G^{-1} n}, \qquad n_i = \|g_i\|,

    so that :math:`g_i^\top d / n_i` is the same for all tasks. The weights sum to 1; some may be
    negative. If :math:`1^\top G^{-1} n < 0`, dividing by it turns the update against every task.

    Shape:
        - gramian: ``(tasks, tasks)``.
        - returns: ``(tasks,)``.

    Example:
        >>> import torch
        >>> IMTLG()(torch.tensor([[1.0, 0.0], [0.0, 4.0]]))
        tensor([0.6667, 0.3333])

    When:
        Every task should progress equally, whatever the norm of its gradient.

    Reference:
        Liu, Li, Kuang, Xue, Chen, Yang, Liao, Zhang. Towards Impartial Multi-Task Learning. ICLR
        2021, equation 6.

    Deviations:
        With dependent gradients :math:`G^{-1}` is the pseudo-inverse, whose projections are as equal as
        they can be. If the sum in the denominator is not positive, the weights are 0 and a warning says so.
        A task whose gradient is 0 has weight 0.
    """

    solves_on_host = True
    unsolved = "equal projections would ascend on every task, or there are none"

    def solve(self, step: GramianStep) -> GramianSolution:
        """The solution, if it decreases every loss."""
        norms, cosine = cosines(step.gramian)
        norms = norms / torch.where(norms.max() == 0, 1.0, norms.max())
        parts = spectrum(cosine, step.rounding)
        # Computed from the cosines, a task with small gradients loses no digits. With dependent gradients
        # the pseudo-inverse of the definition is that of the Gramian itself.
        independent = divide(parts.inverse_times((norms > 0).to(norms)), norms)
        dependent = spectrum(cosine * torch.outer(norms, norms), step.rounding).inverse_times(norms)
        weights = torch.where(parts.kept.all(), independent, dependent)
        total = weights.sum()
        descends = (total > 1e-10 * weights.abs().sum()) | (norms == 0).all()
        return GramianSolution(divide(weights, total), descends)
