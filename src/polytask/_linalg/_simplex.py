"""Projection onto the simplex."""

import torch
from torch import Tensor


def onto_simplex(point: Tensor) -> Tensor:
    """The nearest point whose coordinates are 0 or more and sum to 1.

    Args:
        point: ``(n,)``.

    Example:
        >>> onto_simplex(torch.tensor([0.5, 1.5, -3.0])).tolist()
        [0.0, 1.0, 0.0]

    Reference:
        Duchi, Shalev-Shwartz, Singer, Chandra. Efficient Projections onto the l1-Ball for
        Learning in High Dimensions. ICML 2008, algorithm 1.
    """
    descending = point.sort(descending=True).values
    ranks = torch.arange(1, len(point) + 1, device=point.device, dtype=point.dtype)
    # The threshold of the right support is the largest of all: no support has to be searched.
    threshold = ((descending.cumsum(0) - 1) / ranks).max()
    return (point - threshold).clamp(min=0)
