"""Learned scales that make all losses alike."""

from collections.abc import Iterable

import torch
from torch import Tensor

from polytask.weighting._base import LossWeighting
from polytask.weighting._state import TaskScalars


class IMTLL(LossWeighting):
    r"""IMTL-L: every task learns a scale that brings its loss to 1.

    With one learned number :math:`s_i` per task, 0 at first,

    .. math:: \sum_i e^{s_i} L_i - s_i,

    which is least at :math:`e^{s_i} L_i = 1`. The weights :math:`e^{s_i}` are not normalised.
    Twice `UW` for regressions with :math:`-s_i` in place of :math:`s_i`.

    Shape:
        - losses: ``(tasks,)``, 0 or more.
        - returns: ``()``.

    Example:
        >>> import torch
        >>> weighting = IMTLL()
        >>> weighting.setup(["digit", "height"])
        >>> weighting(torch.tensor([1.0, 2.0])).detach()
        tensor(3.)

    When:
        Losses are above 0 and differ in scale, and the scale is to be learned smoothly.

    Reference:
        Liu, Li, Kuang, Xue, Chen, Yang, Liao, Zhang. Towards Impartial Multi-task Learning. ICLR
        2021, section 3.2.

    Deviations:
        None.
    """

    def setup(self, names: Iterable[str]) -> None:
        """Make one number for each task."""
        super().setup(names)
        self.log_scales = TaskScalars(dict.fromkeys(self.names, 0.0))

    def scalar(self, losses: Tensor, indices: list[int] | None) -> Tensor:
        """The scaled sum and the regulariser."""
        log_scales = self.log_scales.values(indices).to(losses.dtype)
        return (torch.exp(log_scales) * losses - log_scales).sum()
