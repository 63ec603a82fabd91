"""Weights of the shortest update."""

from collections.abc import Callable
from typing import Literal, get_args

import torch
from torch import Tensor

from polytask._errors import UserError, hint
from polytask._linalg import cosines, divide, min_norm, shrink
from polytask.weighting._base import GramianSolution, GramianStep, GramianWeighting

GradientScale = Literal["none", "norm", "loss", "loss_norm"]

SCALES: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "none": lambda norms, losses: torch.ones_like(norms),
    "norm": lambda norms, losses: norms,
    "loss": lambda norms, losses: losses,
    "loss_norm": lambda norms, losses: losses * norms,
}


class MGDA(GramianWeighting):
    r"""Multiple-gradient descent: the shortest vector in the convex hull of the tasks' gradients.

    .. math:: w = \arg\min_{w \ge 0,\ \sum w = 1} \Big\| \sum_i w_i \frac{g_i}{s_i} \Big\|^2,

    and the update is :math:`\sum_i w_i g_i`. No task gets worse along it (without normalisation);
    it is 0 if some combination of the gradients is 0. The weights sum to 1.

    Args:
        normalization: What a task's gradient is divided by when w is computed: ``none`` (1),
            ``norm`` (its norm), ``loss`` (its loss), ``loss_norm`` (both).

    Shape:
        - gramian: ``(tasks, tasks)``.
        - losses: ``(tasks,)``, above 0; required if the normalisation includes the loss.
        - returns: ``(tasks,)``.

    Raises:
        UserError: If the normalisation is none of these.

    Example:
        >>> import torch
        >>> MGDA()(torch.tensor([[1.0, 0.0], [0.0, 4.0]]))
        tensor([0.8000, 0.2000])

    When:
        No task may be harmed in any step, and slow progress is accepted.

    Reference:
        Désidéri. Multiple-Gradient Descent Algorithm (MGDA) for Multiobjective Optimization. Comptes
        Rendus Mathématique, 2012. Sener, Koltun. Multi-Task Learning as Multi-Objective
        Optimization. NeurIPS 2018, equation 3 and algorithm 2.

    Deviations:
        The quadratic program is solved exactly (a duality gap of at most 1e-8 times the smallest
        squared norm); the papers' code stops Frank-Wolfe after some iterations, which is far from the
        solution with ten tasks and more. A loss that is not above 0 gives no weights.
    """

    solves_on_host = True
    unsolved = "no weights were found, or a loss that scales a gradient is not above 0"

    def __init__(self, normalization: GradientScale = "none") -> None:
        super().__init__()
        if normalization not in SCALES:
            raise UserError(
                "MGDA.normalization",
                f"must be one of {', '.join(get_args(GradientScale))}",
                repr(normalization),
                hint(str(normalization), SCALES),
            )
        self.normalization = normalization
        self.needs_losses = normalization in ("loss", "loss_norm")

    def solve(self, step: GramianStep) -> GramianSolution:
        """The minimiser on the simplex."""
        norms, cosine = cosines(step.gramian)
        losses = torch.ones_like(norms) if step.losses is None else step.losses
        scales = SCALES[self.normalization](norms, losses)
        weights, found = min_norm(divide(norms, scales), shrink(cosine, step.rounding))
        return GramianSolution(weights, found & (losses > 0).all() if self.needs_losses else found)

    def extra_repr(self) -> str:
        """The normalisation."""
        return f"normalization={self.normalization}"
