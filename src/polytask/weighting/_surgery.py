"""Gradients turned towards each other one pair after another, for PCGrad and GradVac."""

import torch
from torch import Tensor

from polytask._linalg import divide

# Cosines closer to 1 than this are those of equal gradients; there is nothing to turn.
LARGEST_TARGET = 1 - 1e-6


def random_order(tasks: int, generator: torch.Generator, device: torch.device) -> Tensor:
    """For each task, the other tasks in random order, ``(tasks, tasks - 1)``.

    Example:
        >>> random_order(2, torch.Generator(), torch.device("cpu")).tolist()
        [[1], [0]]
    """
    order = torch.rand(tasks, max(tasks - 1, 0), generator=generator).argsort(1)
    return (order + (order >= torch.arange(tasks)[:, None])).to(device, non_blocking=True)


def turn(gramian: Tensor, order: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
    r"""Project each gradient until its cosine with each of the others has been at its target once.

    If the cosine φ of :math:`g_i'` and :math:`g_j` is below its target τ,

    .. math:: g_i' \leftarrow g_i' + \frac{\|g_i'\| (\tau \sqrt{1-\varphi^2} - \varphi \sqrt{1-\tau^2})}
              {\|g_j\| \sqrt{1-\tau^2}} \, g_j.

    All tasks go through their own order at the same time.

    Args:
        gramian: ``(tasks, tasks)``, float64.
        order: For each task the other tasks, ``(tasks, tasks - 1)``.
        targets: Target of each pair, ``(tasks, tasks)``.

    Returns:
        The coefficients of the turned gradients, one row each, and each pair's cosine before it was turned
        (its target on the diagonal); both ``(tasks, tasks)``.
    """
    squared = gramian.diagonal()
    norms = squared.sqrt()
    coefficients = torch.eye(len(gramian), dtype=gramian.dtype, device=gramian.device)
    products, lengths, met = gramian, squared[:, None], targets
    goals = targets.clamp(-LARGEST_TARGET, LARGEST_TARGET).gather(1, order)
    slants = goals / (1 - goals.square()).sqrt()
    inverse = divide(torch.ones_like(norms), norms)
    for k, other in enumerate(order.mT):
        index = other[:, None]
        product, shorter = products.gather(1, index), inverse[index]
        own = lengths.clamp(min=0).sqrt()
        cosine = divide(product * shorter, own).clamp(-1, 1)
        wanted = own * shorter * (slants[:, k : k + 1] * (1 - cosine.square()).sqrt() - cosine)
        added = torch.where(cosine < goals[:, k : k + 1], wanted, 0.0)
        coefficients = coefficients.scatter_add(1, index, added)
        lengths = lengths + added * (2 * product + added * squared[index])
        products = products + added * gramian[other]
        met = met.scatter(1, index, cosine)
    return coefficients, met
