"""Gradients added to ``.grad``, as torch's backward adds them."""

from collections.abc import Callable, Iterable

import torch
from torch import Tensor
from torch.autograd.graph import get_gradient_edge


@torch.no_grad()
def accumulate(pairs: Iterable[tuple[Tensor, Tensor | None]]) -> None:
    """Add gradients to ``.grad``; None adds nothing.

    Each parameter's gradient is added once, by the node with which torch's own backward adds it: sparse
    gradients stay sparse, and hooks that torch calls after the accumulation are called. Hooks on the gradient
    itself are not: torch has called them when the gradients were computed.

    Args:
        pairs: Parameters with gradients of their shape; those of a frozen parameter are dropped.

    Example:
        >>> parameter = torch.zeros(2, requires_grad=True)
        >>> handle = parameter.register_post_accumulate_grad_hook(lambda leaf: print(leaf.grad))
        >>> accumulate([(parameter, torch.ones(2)), (parameter, torch.ones(2)), (parameter, None)])
        tensor([2., 2.])
    """
    sums: dict[Tensor, Tensor] = {}
    for parameter, gradient in pairs:
        if gradient is None or not parameter.requires_grad:
            continue
        sums[parameter] = added(sums[parameter], gradient) if parameter in sums else gradient
    for parameter, gradient in sums.items():
        node: Callable[[Tensor], object] = get_gradient_edge(parameter).node  # type: ignore[assignment]
        node(gradient.detach().to(parameter.dtype))


def added(one: Tensor, other: Tensor) -> Tensor:
    """The sum of two gradients, of which either may be sparse."""
    # Torch adds a sparse tensor to a dense one, but not the other way round.
    return other + one if one.is_sparse else one + other
