"""Learned uncertainty with a regulariser that stays positive."""

from collections.abc import Iterable

import torch
from torch import Tensor

from polytask.weighting._base import LossWeighting
from polytask.weighting._state import TaskScalars


class UWRevised(LossWeighting):
    r"""Uncertainty weighting whose scalar never becomes negative.

    With one learned number :math:`c_i` per task, 1 at first,

    .. math:: \sum_i \frac{L_i}{2 c_i^2} + \ln(1 + c_i^2).

    The weights :math:`1/(2c_i^2)` are not normalised. Unlike with `UW`, they change when a loss is
    measured in another unit.

    Shape:
        - losses: ``(tasks,)``, 0 or more.
        - returns: ``()``.

    Example:
        >>> import torch
        >>> weighting = UWRevised()
        >>> weighting.setup(["digit", "height"])
        >>> weighting(torch.tensor([1.0, 2.0])).detach()
        tensor(2.8863)

    When:
        As `UW`, if the total must not be negative.

    Reference:
        Liebel, Körner. Auxiliary Tasks in Multi-task Learning. arXiv 1805.06334, 2018, section 3.

    Deviations:
        None.
    """

    def setup(self, names: Iterable[str]) -> None:
        """Make one number for each task."""
        super().setup(names)
        self.scales = TaskScalars(dict.fromkeys(self.names, 1.0))

    def scalar(self, losses: Tensor, indices: list[int] | None) -> Tensor:
        """The weighted sum and the regulariser."""
        squares = self.scales.values(indices).to(losses.dtype).square()
        return (losses / (2 * squares) + torch.log1p(squares)).sum()
