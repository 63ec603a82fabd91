"""Gradients made orthogonal and of equal norm."""

from collections.abc import Callable
from typing import Literal, get_args

import torch
from torch import Tensor

from polytask._errors import UserError, hint
from polytask._linalg import spectrum
from polytask.weighting._base import GramianSolution, GramianStep, GramianWeighting

Scale = Literal["min", "median", "mean"]


def _median(values: Tensor, kept: Tensor) -> Tensor:
    # The values are in ascending order: those that count are the last.
    index = len(values) - kept.sum() + (kept.sum() - 1) // 2
    return values.index_select(0, index.clamp(0, len(values) - 1)[None])[0]


SCALES: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "min": lambda values, kept: torch.where(kept, values, torch.inf).min(),
    "median": _median,
    "mean": lambda values, kept: torch.where(kept, values, 0.0).sum() / kept.sum(),
}


class AlignedMTL(GramianWeighting):
    r"""Independent component alignment: the nearest gradients that are orthogonal and of one length.

    .. math:: w = \sqrt{\lambda} \; V \Lambda^{-1/2} V^\top \, \frac{1}{T},

    with the eigenvalues Λ and eigenvectors V of G, and λ the smallest eigenvalue that counts: the
    length of the update is what the weakest principal component allows. The weights are not
    normalised otherwise; they sum to 1 if the gradients are orthogonal and of one norm. A head's own
    parameters are scaled by the weights too.

    Args:
        scale: Which eigenvalue λ is: the smallest (``min``, as in the paper), the ``median`` or the ``mean``
            (as in the authors' code).

    Shape:
        - gramian: ``(tasks, tasks)``.
        - returns: ``(tasks,)``.

    Raises:
        UserError: If the scale is none of these.

    Example:
        >>> import torch
        >>> AlignedMTL()(torch.tensor([[1.0, 0.0], [0.0, 4.0]]))
        tensor([0.5000, 0.2500])

    When:
        Gradients differ much in length or nearly depend on each other, and training is
        unstable.

    Reference:
        Senushkin, Patakin, Kuznetsov, Konushin. Independent Component Alignment for Multi-Task
        Learning. CVPR 2023, equation 9 and algorithm 1.

    Deviations:
        None. Eigenvalues below tasks times the rounding of the given Gramian do not count; if none counts,
        all gradients are 0 and so are the weights.
    """

    solves_on_host = True
    scale_heads = True

    def __init__(self, scale: Scale = "min") -> None:
        super().__init__()
        if scale not in SCALES:
            allowed = ", ".join(get_args(Scale))
            fix = hint(str(scale), SCALES)
            raise UserError("AlignedMTL.scale", f"must be one of {allowed}", repr(scale), fix)
        self.scale = scale

    def solve(self, step: GramianStep) -> GramianSolution:
        """The balanced combination with equal shares."""
        largest = step.gramian.diagonal().max()
        parts = spectrum(step.gramian / torch.where(largest > 0, largest, 1.0), step.rounding)
        level = SCALES[self.scale](parts.values, parts.kept)
        factors = (level / torch.where(parts.kept, parts.values, 1.0)).sqrt()
        share = torch.full_like(parts.values, 1 / len(parts.values))
        return GramianSolution(parts.apply(factors, share))

    def extra_repr(self) -> str:
        """The scale."""
        return f"scale={self.scale}"
