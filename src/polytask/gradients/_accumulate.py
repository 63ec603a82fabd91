"""Gradients added to ``.grad``, as torch's backward adds them."""

from collections.abc import Iterable

import torch
from torch import Tensor


@torch.no_grad()
def accumulate(pairs: Iterable[tuple[Tensor, Tensor | None]]) -> None:
    """Add gradients to ``.grad``; None adds nothing.

    Args:
        pairs: Parameters with gradients of their shape.

    Example:
        >>> parameter = torch.zeros(2, requires_grad=True)
        >>> accumulate([(parameter, torch.ones(2)), (parameter, torch.ones(2)), (parameter, None)])
        >>> parameter.grad
        tensor([2., 2.])
    """
    for parameter, gradient in pairs:
        if gradient is None:
            continue
        if parameter.grad is None:
            parameter.grad = gradient.detach().to(parameter.dtype, memory_format=torch.preserve_format)
        else:
            parameter.grad += gradient
