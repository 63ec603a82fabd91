"""The direction of CAGrad: best for the worst task, in a ball around the average gradient."""

import torch
from torch import Tensor

from polytask._linalg._gramian import cosines, divide
from polytask._linalg._nnls import SMALL, TOLERANCE, min_norm, nonnegative, restricted, solve, supports

BISECTIONS = 100


def steepest_in_ball(norms: Tensor, cosine: Tensor, radius: float) -> tuple[Tensor, Tensor]:
    r"""The z of :math:`d = g_0 + J^\top z` that maximises :math:`\min_i g_i^\top d` in a ball.

    The ball is :math:`\|d - g_0\| \le c \|g_0\|` around the average gradient. At the solution
    z ≥ 0, and with the worst task's progress μ, :math:`G z + G 1/T \ge \mu` with equality for
    z > 0. On a support, z is linear in μ and the length of :math:`J^\top z` gives a quadratic
    equation for μ: with up to eight tasks all supports are tried at once. With more, the support
    comes from points of least norm, :math:`\omega = \arg\min \|J^\top\omega + r g_0\|`, whose r is
    bracketed until the solution on the support is the solution.

    If no direction in the ball helps every task and μ = 0 is possible inside it, d is the vector
    nearest to the average that harms no task.

    Args:
        norms: Norms of the gradients, ``(n,)``; a gradient of 0 is left out of the minimum.
        cosine: Cosines between them, ``(n, n)``.
        radius: c, above 0.

    Returns:
        z, ``(n,)``, and whether it was solved.
    """
    norms = divide(norms, norms.max())
    least = torch.where(norms > 0, norms, torch.inf).min()
    inverse = divide(least, norms)
    average = cosine @ norms / len(norms)
    squared = norms @ average / len(norms)
    # An average as short as this is 0 up to rounding; there is no ball around it.
    none = squared <= 1e-28
    length = torch.where(none, 1.0, squared).sqrt()
    rows = average / length
    y, residual = _best_support(norms, cosine, inverse, rows, length, radius)
    still, held = nonnegative(cosine, -rows[None])
    inside = (still[0] @ cosine @ still[0]).clamp(min=0).sqrt() <= radius * (1 + TOLERANCE)
    failed = ~(residual <= TOLERANCE * y.amax().clamp(min=1))
    y = torch.where(failed, still[0], y)
    z = torch.where(none, 0.0, divide(y.clamp(min=0) * length, norms))
    return z, none | ~failed | (held[0] & inside)


def _best_support(
    norms: Tensor, cosine: Tensor, inverse: Tensor, rows: Tensor, length: Tensor, radius: float
) -> tuple[Tensor, Tensor]:
    if len(norms) <= SMALL:
        masks = supports(len(norms), norms.device)
        y, residual = _on_supports(cosine, inverse, rows, radius, masks)
        least, best = residual.min(0)
        return y.index_select(0, best[None])[0].nan_to_num(), least
    return _bracket(norms, cosine, inverse, rows, length, radius)


def _on_supports(
    cosine: Tensor, inverse: Tensor, rows: Tensor, radius: float, masks: Tensor
) -> tuple[Tensor, Tensor]:
    """y and its residual on each support; lengths in units of the average gradient."""
    right = torch.stack([inverse, rows], -1) * masks[:, :, None]
    rising, falling = solve(restricted(cosine, masks), right).unbind(-1)
    a, b, c = rising @ inverse, falling @ inverse, falling @ rows - radius**2
    progress = (b + (b * b - a * c).sqrt()) / a
    y = progress[:, None] * rising - falling
    slope = y @ cosine + rows - progress[:, None] * inverse
    off = ((y @ cosine) * y).sum(-1).sqrt() - radius
    residual = torch.maximum(torch.minimum(y, slope).abs().amax(-1), off.abs())
    return y, residual.nan_to_num(nan=torch.inf)


def _bracket(
    norms: Tensor, cosine: Tensor, inverse: Tensor, rows: Tensor, length: Tensor, radius: float
) -> tuple[Tensor, Tensor]:
    gramian = cosine * torch.outer(norms, norms) / length**2
    products = rows * norms / length
    low, high = 0.0, float(norms.max() / length) / radius
    best, residual = torch.zeros_like(norms), torch.tensor(torch.inf, dtype=norms.dtype)
    ratio = min(1.0, high)
    for step in range(BISECTIONS):
        shifted = gramian + ratio * (products[:, None] + products) + ratio**2
        weights, _ = min_norm(*cosines(shifted))
        y, error = _on_supports(cosine, inverse, rows, radius, (weights > 1e-12)[None])
        if bool(error[0] < residual):
            best, residual = y[0], error[0]
        if bool(residual <= TOLERANCE / 100):
            break
        reached = float((weights @ gramian @ weights).clamp(min=0).sqrt()) / radius
        low, high = (ratio, high) if reached > ratio else (low, ratio)
        if high - low <= 1e-13 * high:
            break
        # The ratio on the support, if it has one, is right as soon as the support is. Every other step halves
        # the bracket.
        guess = float(1 / (divide(y[0], norms) * length).sum())
        ratio = guess if step % 2 == 0 and low < guess < high else (low + high) / 2
    return best, residual
