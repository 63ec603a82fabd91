r"""The one quadratic program: minimise :math:`\tfrac12 x^\top Q x - b^\top x` over :math:`x \ge 0`.

It is non-negative least squares if :math:`b` lies in the range of :math:`Q`, as it does here.
Matrices have a diagonal near 1 and right-hand sides are at most about 1, so that tolerances are absolute.
"""

import torch
from torch import Tensor

SMALL = 8
SMALL_ON_HOST = 6
TOLERANCE = 1e-8
SHARP = 1e-10
ROUNDING = 1e-14
ROUNDS = 60
INTERIOR_STEPS = 40


def nonnegative(matrix: Tensor, right: Tensor) -> tuple[Tensor, Tensor]:
    r"""Minimise :math:`\tfrac12 x^\top Q x - b^\top x` over :math:`x \ge 0`, for many b at once.

    With up to eight unknowns, all supports are solved in one batch and nothing is read on the host.
    With more, the matrix must be on the host, on which pivoting is faster from seven unknowns on: block
    pivoting, whose result is checked, and an interior point method for problems that it did not solve.

    Args:
        matrix: Q, ``(n, n)``, symmetric, positive semi-definite, diagonal near 1.
        right: b, ``(problems, n)``.

    Returns:
        x, ``(problems, n)``, and which problems were solved, ``(problems,)``.

    Example:
        >>> x, solved = nonnegative(torch.eye(2).double(), torch.tensor([[1.0, -1.0]]).double())
        >>> x.abs().tolist(), solved.tolist()
        ([[1.0, 0.0]], [True])

    Reference:
        Kim, Park. Fast Nonnegative Matrix Factorization: An Active-Set-Like Method and Comparisons.
        SIAM Journal on Scientific Computing, 2011, algorithm 2 (block pivoting). Mehrotra. On the
        Implementation of a Primal-Dual Interior Point Method. SIAM Journal on Optimization, 1992.
    """
    few = SMALL_ON_HOST if matrix.device.type == "cpu" else SMALL
    solver = _all_supports if len(matrix) <= few else _pivot_or_interior
    x, residual = solver(matrix, right)
    x = x.clamp(min=0)
    return x, residual <= (TOLERANCE + ROUNDING * x.amax(1)).clamp(max=100 * TOLERANCE)


def min_norm(norms: Tensor, cosine: Tensor) -> tuple[Tensor, Tensor]:
    r"""The point of least norm in the convex hull of gradients: argmin of :math:`w^\top G w` on the simplex.

    Args:
        norms: Norms of the gradients, ``(n,)``.
        cosine: Cosines between them, ``(n, n)``.

    Returns:
        w, ``(n,)``, and whether it was solved.

    Example:
        >>> w, solved = min_norm(torch.tensor([1.0, 2.0]).double(), torch.eye(2).double())
        >>> w.numpy().round(6).tolist(), bool(solved)
        ([0.8, 0.2], True)
    """
    # For y = D w the entries of the matrix are cosines, so that a task's scale costs no digits.
    largest = norms.max()
    norms = torch.where(largest == 0, 1.0, norms.clamp(min=1e-12 * largest))
    inverse = norms.min() / norms
    y, solved = nonnegative(cosine + torch.outer(inverse, inverse), inverse[None])
    w = y[0] * inverse
    return w / w.sum(), solved[0]


def supports(n: int, device: torch.device) -> Tensor:
    """All subsets of n elements, ``(2 ** n, n)``, the empty one first."""
    codes = torch.arange(2**n, device=device)
    return codes[:, None] >> torch.arange(n, device=device) & 1 == 1


def restricted(matrix: Tensor, masks: Tensor) -> Tensor:
    """The matrix on each support and the identity elsewhere, ``(supports, n, n)``."""
    identity = torch.eye(len(matrix), dtype=matrix.dtype, device=matrix.device)
    return torch.where(masks[:, :, None] & masks[:, None, :], matrix, identity)


def solve(matrix: Tensor, right: Tensor) -> Tensor:
    """The solution of linear systems; a singular one yields NaN or infinity, never an error."""
    solution: Tensor = torch.linalg.solve_ex(matrix, right)[0]
    return solution


def _residual(x: Tensor, slope: Tensor, dim: int) -> Tensor:
    # min(x, slope) is 0 exactly if x, slope >= 0 and one of each pair is 0.
    return torch.minimum(x, slope).abs().nan_to_num(nan=torch.inf).amax(dim)


def _all_supports(matrix: Tensor, right: Tensor) -> tuple[Tensor, Tensor]:
    masks = supports(len(matrix), matrix.device)
    x = solve(restricted(matrix, masks), masks[:, :, None] * right.mT)
    residual = _residual(x, matrix @ x - right.mT, 1)
    least, best = residual.min(0)
    x = x.take_along_dim(best.expand(1, x.shape[1], -1), 0)[0].mT
    return torch.where(least[:, None].isfinite(), x, 0.0), least


def _pivot_or_interior(matrix: Tensor, right: Tensor) -> tuple[Tensor, Tensor]:
    x, residual = _pivot(matrix, right)
    left = ~(residual <= SHARP)
    if bool(left.any()):
        other, other_residual = _interior(matrix, right[left])
        better = other_residual < residual[left]
        x[left] = torch.where(better[:, None], other, x[left])
        residual[left] = torch.where(better, other_residual, residual[left])
    return x, residual


def _on_support(matrix: Tensor, right: Tensor, mask: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    x = solve(restricted(matrix, mask), (mask * right)[..., None])[..., 0]
    slope = x @ matrix - right
    residual = _residual(x, slope, 1)
    return torch.where(residual[:, None].isfinite(), x, 0.0), slope, residual


def _pivot(matrix: Tensor, right: Tensor) -> tuple[Tensor, Tensor]:
    count, n = right.shape
    mask = right > 0
    fewest = torch.full((count,), n + 1)
    patience = torch.full((count,), 3)
    positions = torch.arange(n)
    for _ in range(ROUNDS):
        x, slope, residual = _on_support(matrix, right, mask)
        wrong = torch.where(mask, x, slope) < -1e-14
        number = wrong.sum(1)
        # A singular support has no wrong entry either; its residual is infinite.
        if not bool(((number > 0) & (residual > SHARP)).any()):
            break
        fewer = number < fewest
        fewest = torch.minimum(fewest, number)
        patience = torch.where(fewer, 3, patience - 1)
        # Exchanging the last wrong entry alone cannot cycle.
        last = positions == (wrong * (positions + 1)).amax(1, keepdim=True) - 1
        mask = mask ^ (wrong & (last | (patience >= 0)[:, None]))
    return x, residual


def _interior(matrix: Tensor, right: Tensor) -> tuple[Tensor, Tensor]:
    x, dual = torch.ones_like(right), torch.ones_like(right)
    for _ in range(INTERIOR_STEPS):
        factors = torch.linalg.lu_factor_ex(matrix + torch.diag_embed(dual / x))[:2]
        rest = x @ matrix - right - dual
        gap = (x * dual).mean(1, keepdim=True)
        step, dual_step = _interior_step(factors, x, dual, rest, -x * dual)
        length = _longest(x, step, dual, dual_step)
        ahead = ((x + length * step) * (dual + length * dual_step)).mean(1, keepdim=True)
        product = (ahead / gap) ** 3 * gap - step * dual_step - x * dual
        step, dual_step = _interior_step(factors, x, dual, rest, product)
        length = 0.995 * _longest(x, step, dual, dual_step)
        moved = torch.isfinite(step).all(1, keepdim=True) & (gap > 1e-30)
        x = torch.where(moved, x + length * step, x)
        dual = torch.where(moved, dual + length * dual_step, dual)
    sharp, _, sharp_residual = _on_support(matrix, right, x > dual)
    residual = _residual(x, x @ matrix - right, 1)
    return torch.where((sharp_residual < residual)[:, None], sharp, x), torch.minimum(
        sharp_residual, residual
    )


def _interior_step(
    factors: tuple[Tensor, Tensor], x: Tensor, dual: Tensor, rest: Tensor, product: Tensor
) -> tuple[Tensor, Tensor]:
    step = torch.linalg.lu_solve(*factors, (product / x - rest)[..., None])[..., 0]
    return step, (product - dual * step) / x


def _longest(x: Tensor, step: Tensor, dual: Tensor, dual_step: Tensor) -> Tensor:
    steepest = torch.maximum(-step / x, -dual_step / dual).amax(1, keepdim=True)
    return 1 / steepest.clamp(min=1)
