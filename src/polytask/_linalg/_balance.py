"""Newton's method for the bargaining equations of Nash-MTL and FairGrad."""

import math

import torch
from torch import Tensor

from polytask._linalg._nnls import solve

STEPS = 40
TOLERANCE = 1e-7
SHARP = 1e-13
LENGTHS = (1.0, 0.6, 0.3, 0.1, 0.03)


def balance(matrix: Tensor, right: Tensor, power: float) -> tuple[Tensor, Tensor]:
    r"""The positive y with :math:`M y = c \, y^{-p}`, by damped Newton.

    y minimises the convex :math:`\tfrac12 y^\top M y - \sum_i c_i \psi(y_i)` with
    :math:`\psi'(y) = y^{-p}`. Before each step y is scaled to the best multiple of itself,
    and the length of the step is the best of a batch. There is no solution if some convex combination
    of the gradients is 0; then the residual stays large.

    Nothing is read on the host, except on the CPU, on which reading costs less than the steps it saves.

    Args:
        matrix: M, ``(n, n)``, symmetric, positive semi-definite.
        right: c, ``(n,)``, positive; best equal to the diagonal of M.
        power: p, above 0.

    Returns:
        y, ``(n,)``, and whether it solves the equations.

    Example:
        >>> y, solved = balance(torch.tensor([[4.0]]).double(), torch.tensor([1.0]).double(), 1.0)
        >>> round(y.item(), 6), bool(solved)
        (0.5, True)
    """
    y = torch.ones_like(right)
    lengths = torch.tensor(LENGTHS, dtype=right.dtype, device=right.device)
    before = math.inf
    for _ in range(STEPS):
        squared = (y @ matrix @ y).clamp(min=torch.finfo(y.dtype).tiny)
        y = y * ((right * y ** (1 - power)).sum() / squared) ** (1 / (1 + power))
        target = right * y**-power
        slope = matrix @ y - target
        error = (slope / target).abs().amax()
        if error.device.type == "cpu":
            now = error.item()
            # Below the tolerance, continue as long as a step at least halves the error.
            if math.isnan(now) or now <= SHARP or before / 2 < now <= TOLERANCE:
                break
            before = now
        y = _step(y, slope, target, matrix, right, power, lengths)
    return y, error <= TOLERANCE


def _step(
    y: Tensor, slope: Tensor, target: Tensor, matrix: Tensor, right: Tensor, power: float, lengths: Tensor
) -> Tensor:
    direction = solve(matrix + torch.diag(power * target / y), slope)
    inside = 0.95 / (direction / y).amax().clamp(min=0.95)
    # Close to the solution, values differ by rounding only and Newton's own length is right.
    near = slope @ direction < 1e-3
    if near.device.type == "cpu" and bool(near):
        return y - inside * direction
    tried = y - (inside * lengths)[:, None] * direction
    value = 0.5 * ((tried @ matrix) * tried).sum(1) - (right * _primitive(tried, power)).sum(1)
    value = torch.where(near & (lengths == 1.0), -torch.inf, value)
    value = value.nan_to_num(nan=torch.inf, neginf=-torch.inf)
    return tried.index_select(0, value.argmin()[None])[0]


def _primitive(y: Tensor, power: float) -> Tensor:
    return y.log() if power == 1 else y ** (1 - power) / (1 - power)
