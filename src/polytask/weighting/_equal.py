"""Equal weights."""

from typing import ClassVar

from torch import Tensor

from polytask.weighting._base import LossWeighting


class Equal(LossWeighting):
    r"""The plain sum of the losses, :math:`\sum_i L_i`; every weight is 1.

    Shape:
        - losses: ``(tasks,)``.
        - returns: ``()``.

    Example:
        >>> import torch
        >>> weighting = Equal()
        >>> weighting.setup(["digit", "parity"])
        >>> weighting(torch.tensor([1.0, 2.0]))
        tensor(3.)

    When:
        Always first: it is the baseline, and with tuned `loss_weights` it is hard to beat.

    Reference:
        The usual baseline; no paper.

    Deviations:
        None.
    """

    is_sum: ClassVar[bool] = True

    def scalar(self, losses: Tensor, indices: list[int] | None) -> Tensor:
        """The sum."""
        return losses.sum()
