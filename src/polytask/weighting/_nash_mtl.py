"""The tasks' bargaining solution."""

import torch

from polytask._checks import check_number
from polytask._linalg import balance, cosines, divide
from polytask.weighting._base import GramianSolution, GramianStep, GramianWeighting


class NashMTL(GramianWeighting):
    r"""Nash's bargaining solution: the update that maximises the product of the tasks' gains.

    .. math:: G w = 1 / w, \qquad w > 0.

    Each task's gain :math:`g_i^\top d = 1/w_i` is positive, and a task's scale does not matter for
    the direction. The update has norm :math:`\sqrt T` whatever the gradients are; the weights are therefore
    divided by :math:`\max(1, \sqrt T / \text{max\_norm})`. They are not normalised otherwise. A head's own
    parameters are scaled by the weights too.

    There are no such weights if a combination of the gradients is 0: no update helps all tasks.

    Args:
        max_norm: Largest norm of the update, in units of the gradients; None means :math:`\sqrt T`.

    Shape:
        - gramian: ``(tasks, tasks)``.
        - returns: ``(tasks,)``.

    Raises:
        UserError: If the norm is not above 0.

    Example:
        >>> import torch
        >>> NashMTL(max_norm=None)(torch.tensor([[1.0, 0.0], [0.0, 4.0]]))
        tensor([1.0000, 0.5000])

    When:
        Losses differ in scale, and their scale must not matter.

    Reference:
        Navon, Shamsian, Achituve, Maron, Kawaguchi, Chechik, Fetaya. Multi-Task Learning as a
        Bargaining Game. ICML 2022, claim 3.1 and algorithm 1.

    Deviations:
        Solved by Newton's method to a relative residual of 1e-7; the paper linearises and stops after 20
        steps. No earlier weights are kept, so that none can leak from one batch into another. If there is no
        solution, the authors' code uses the last weights again; here the weights are 0 and a warning says
        so. A task whose gradient is 0 has weight 0. The authors' code clips the shared parameters' gradient
        alone to `max_norm`; here the weights are reduced, so that a head's own parameters are too.
    """

    solves_on_host = True
    scale_heads = True
    unsolved = "no update helps every task, or none was found"

    def __init__(self, max_norm: float | None = 1.0) -> None:
        super().__init__()
        self.max_norm = None if max_norm is None else check_number(max_norm, "NashMTL.max_norm", above=0)

    def solve(self, step: GramianStep) -> GramianSolution:
        """The solution of the bargaining equations."""
        norms, cosine = cosines(step.gramian)
        gains, found = balance(cosine, torch.ones_like(norms), 1.0)
        weights = divide(gains, norms)
        if self.max_norm is not None:
            # At the solution the norm is sqrt(T), with T the number of tasks that have a gradient.
            norm = (norms > 0).sum().sqrt()
            weights = weights * (self.max_norm / norm.clamp(min=self.max_norm))
        return GramianSolution(weights, found)

    def extra_repr(self) -> str:
        """The largest norm of the update."""
        return f"max_norm={self.max_norm}"
