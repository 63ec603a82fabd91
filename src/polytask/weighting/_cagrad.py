"""The best for the worst task, near the average gradient."""

from polytask._linalg import cosines, shrink, steepest_in_ball
from polytask.weighting._base import GramianSolution, GramianStep, GramianWeighting
from polytask.weighting._values import check_number


class CAGrad(GramianWeighting):
    r"""Conflict-averse gradient descent: the worst task's progress, in a ball around the average gradient.

    .. math:: d = \arg\max_{\|d - g_0\| \le c \|g_0\|} \min_i g_i^\top d, \qquad
              g_0 = \frac1T \sum_i g_i.

    The weights are :math:`w = \frac1T + \frac{c\|g_0\|}{\|J^\top\omega\|}\,\omega` with
    :math:`\omega = \arg\min_{\omega \ge 0, \sum\omega = 1} \omega^\top G \tfrac{1}{T} + c\|g_0\|
    \sqrt{\omega^\top G \omega}`. They sum to more than 1: to about :math:`1 + c`, and to more the
    more gradients conflict.

    Args:
        c: Radius of the ball in units of the average gradient's norm, above 0. Below 1 the update
            converges to a stationary point of the average loss.
        rescale: Whether to divide the weights by :math:`1 + c^2`, as the authors' code does.

    Shape:
        - gramian: ``(tasks, tasks)``.
        - returns: ``(tasks,)``.

    Raises:
        UserError: If c is not above 0.

    Example:
        >>> import torch
        >>> CAGrad(c=0.5)(torch.tensor([[1.0, 0.0], [0.0, 1.0]]))
        tensor([0.7500, 0.7500])

    When:
        The average loss is the aim, and the worst task must still improve.

    Reference:
        Liu, Liu, Jin, Stone, Liu. Conflict-Averse Gradient Descent for Multi-Task Learning. NeurIPS
        2021, equations 2 and 3 and algorithm 1.

    Deviations:
        Solved exactly, not by SLSQP. If :math:`J^\top\omega = 0`, the paper divides by 0; here the update is
        then the vector nearest to the average gradient that harms no task. A task whose gradient is 0 is
        left out of the minimum.
    """

    solves_on_host = True

    def __init__(self, c: float = 0.4, rescale: bool = False) -> None:
        super().__init__()
        self.c = check_number(c, "CAGrad.c", above=0)
        self.rescale = rescale

    def solve(self, step: GramianStep) -> GramianSolution:
        """The weights of the average gradient, plus those of the steepest direction from it."""
        norms, cosine = cosines(step.gramian)
        extra, found = steepest_in_ball(norms, shrink(cosine, step.rounding), self.c)
        weights = 1 / len(norms) + extra
        return GramianSolution(weights / (1 + self.c**2) if self.rescale else weights, found)

    def extra_repr(self) -> str:
        """The radius."""
        return f"c={self.c:g}, rescale={self.rescale}"
