"""The average gradient, projected on the cone that harms no task."""

import torch

from polytask._linalg import cosines, divide, nonnegative, shrink
from polytask.weighting._base import GramianSolution, GramianStep, GramianWeighting


class DualProj(GramianWeighting):
    r"""Projects the average gradient on the cone that harms no task.

    .. math:: w = \arg\min_{v \ge 1/T} v^\top G v,

    where :math:`J^\top w` is the vector nearest to the average gradient with :math:`J d \ge 0`. The
    weights sum to 1 if the average harms no task, and to more otherwise.

    Shape:
        - gramian: ``(tasks, tasks)``.
        - returns: ``(tasks,)``.

    Example:
        >>> import torch
        >>> DualProj()(torch.tensor([[1.0, -1.0], [-1.0, 4.0]]))
        tensor([0.5000, 0.5000])

    When:
        No task may be harmed in any step, and the average loss is the aim.

    Reference:
        Lopez-Paz, Ranzato. Gradient Episodic Memory for Continual Learning. NeurIPS 2017, equations
        8 to 11.

    Deviations:
        The paper projects the gradient of the current task, and adds a margin to the weights; here it
        is the average of all tasks, without a margin. The projection is exact; TorchJD adds 1e-4 of
        the Gramian's trace to its diagonal.
    """

    solves_on_host = True

    def solve(self, step: GramianStep) -> GramianSolution:
        """The projection."""
        norms, cosine = cosines(step.gramian)
        cosine = shrink(cosine, step.rounding)
        largest = torch.where(norms.max() == 0, 1.0, norms.max())
        average = cosine @ (norms / largest) / len(norms)
        excess, found = nonnegative(cosine, -average[None])
        return GramianSolution(1 / len(norms) + divide(excess[0] * largest, norms), found[0])
