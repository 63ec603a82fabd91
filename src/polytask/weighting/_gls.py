"""The geometric mean of the losses."""

import torch
from torch import Tensor

from polytask.weighting._bounded import BoundedLossWeighting


class GLS(BoundedLossWeighting):
    r"""Geometric loss strategy: the geometric mean, which does not depend on the losses' units.

    .. math:: \Bigl(\prod_i L_i\Bigr)^{1/T} = \exp\Bigl(\frac1T \sum_i \log L_i\Bigr)

    The weight of a task is the mean divided by :math:`T L_i`; the weights are not normalised. The
    mean of accumulated batches is not the mean of the large batch.

    Shape:
        - losses: ``(tasks,)``, above 0.
        - returns: ``()``.

    Raises:
        UserError: If a loss is not above 0.

    Example:
        >>> import torch
        >>> weighting = GLS()
        >>> weighting.setup(["digit", "height"])
        >>> weighting(torch.tensor([2.0, 8.0]))
        tensor(4.)

    When:
        Losses are above 0, and their units differ by orders of magnitude.

    Reference:
        Chennupati, Sistu, Yogamani, Rawashdeh. MultiNet++: Multi-Stream Feature Aggregation and
        Geometric Loss Strategy for Multi-Task Learning. CVPR Workshops 2019, section 3.

    Deviations:
        Computed from logarithms, since a product would underflow; no task is given more weight.
    """

    def scalar(self, losses: Tensor, indices: list[int] | None) -> Tensor:
        """The geometric mean."""
        return torch.exp(torch.log(losses).mean())
