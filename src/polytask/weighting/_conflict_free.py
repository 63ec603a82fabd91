"""ConFIG, conflict-free inverse gradients: the update that conflicts with no task."""

import torch

from polytask._linalg import cosines, divide, spectrum
from polytask.weighting._base import GramianSolution, GramianStep, GramianWeighting


class ConFIG(GramianWeighting):
    r"""Conflict-free inverse gradients: equal cosines with every task.

    .. math:: u \propto J^\top D^{-1} C^+ 1, \qquad d = \Big(\sum_i g_i^\top u\Big) u,

    with the cosines C, D = diag(n) and the unit vector u; the length is the sum of the
    projections. With independent gradients the direction is that of IMTL-G. The weights are not
    normalised: the length of the update is the definition.

    Shape:
        - gramian: ``(tasks, tasks)``.
        - returns: ``(tasks,)``.

    Example:
        >>> import torch
        >>> ConFIG()(torch.tensor([[1.0, 0.0], [0.0, 4.0]]))
        tensor([1.5000, 0.7500])

    When:
        All tasks must be fulfilled together, such as the terms of a physics-informed loss.

    Reference:
        Liu, Chu, Thuerey. ConFIG: Towards Conflict-free Training of Physics Informed Neural Networks.
        ICLR 2025, equations 2 and 3.

    Deviations:
        None. If no direction has equal cosines at all (opposed gradients), the update is 0.
    """

    solves_on_host = True

    def solve(self, step: GramianStep) -> GramianSolution:
        """The direction, times the length."""
        norms, cosine = cosines(step.gramian)
        equal = spectrum(cosine, step.rounding).inverse_times((norms > 0).to(cosine))
        # In units of the norms: the squared length of the direction, and the sum of the projections.
        squared = equal @ cosine @ equal
        projections = norms @ cosine @ equal
        resolved = squared > len(norms) * step.rounding
        return GramianSolution(
            torch.where(resolved, divide(equal * divide(projections, squared), norms), 0.0)
        )
