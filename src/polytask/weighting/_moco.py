"""Weights of least norm from gradients that are averaged over steps."""

from collections.abc import Iterable

import torch
from torch import Tensor

from polytask.weighting._base import JacobianAggregator
from polytask.weighting._state import pick, put
from polytask.weighting._task_rows import TaskRows
from polytask.weighting._values import check_number


class MoCo(JacobianAggregator):
    r"""Multi-objective gradient correction: the common descent of gradients freed of their noise.

    Step *k* moves a running average *Y* of the Jacobian (0 at first) and the weights
    :math:`\lambda` (equal at first), and takes the update from both:

    .. math::
        Y &\leftarrow Y - \beta k^{-s} (Y - J) \\
        \lambda &\leftarrow \operatorname{softmax}\bigl(\lambda - \gamma k^{-t} (Y Y^\top + \rho I)
            \lambda\bigr) \\
        d &= Y^\top \lambda

    The weights of the present tasks sum to 1. Each task counts its own steps for *Y*.

    Args:
        beta: :math:`\beta`, share of the new gradient at the first step, above 0 and at most 1.
        beta_decay: *s*, 0 or more.
        gamma: :math:`\gamma`, step size of the weights, above 0, in the unit of 1/gradient².
        gamma_decay: *t*, 0 or more.
        rho: :math:`\rho`, pull towards equal weights, 0 or more, in the unit of gradient².

    Shape:
        - jacobian: ``(tasks, parameters)``.
        - returns: ``(parameters,)``.

    Raises:
        UserError: If an argument is out of range, or the number of parameters changes.

    Example:
        >>> import torch
        >>> MoCo(beta=1.0)(torch.tensor([[2.0, 0.0], [0.0, 2.0]]))
        tensor([1., 1.])

    When:
        As `MGDA`, if gradients of small batches are noisy.

    Reference:
        Fernando, Shen, Liu, Chaudhury, Murugesan, Chen. Mitigating Gradient Bias in Multi-objective
        Learning: A Provably Convergent Approach. ICLR 2023, algorithm 1; defaults of the authors'
        code.

    Deviations:
        Softmax instead of the projection onto the simplex, as in the authors' code. Rows are not scaled by
        their loss first, which the authors' code does and the algorithm does not. The weights of present
        tasks change within the share that these tasks have together; an absent task's row and weight stay
        unchanged.
    """

    shares: Tensor
    steps: Tensor
    updates: Tensor

    def __init__(
        self,
        beta: float = 0.5,
        beta_decay: float = 0.5,
        gamma: float = 0.1,
        gamma_decay: float = 0.5,
        rho: float = 0.0,
    ) -> None:
        super().__init__()
        self.beta = check_number(beta, "MoCo.beta", above=0, most=1)
        self.beta_decay = check_number(beta_decay, "MoCo.beta_decay", least=0)
        self.gamma = check_number(gamma, "MoCo.gamma", above=0)
        self.gamma_decay = check_number(gamma_decay, "MoCo.gamma_decay", least=0)
        self.rho = check_number(rho, "MoCo.rho", least=0)

    def setup(self, names: Iterable[str]) -> None:
        """Begin with equal weights."""
        super().setup(names)
        tasks = len(self.names)
        self.average = TaskRows(tasks)
        self.register_buffer("shares", torch.full((tasks,), 1 / tasks))
        self.register_buffer("steps", torch.zeros(tasks, dtype=torch.int64))
        self.register_buffer("updates", torch.zeros((), dtype=torch.int64))

    def aggregate(self, jacobian: Tensor, indices: list[int] | None, losses: Tensor | None) -> Tensor:
        """The weighted sum of the averaged rows."""
        steps = pick(self.steps, indices) + 1
        put(self.steps, indices, steps)
        self.updates += 1
        rate = self.beta * steps.to(jacobian.dtype) ** -self.beta_decay
        old = self.average.read(jacobian, indices).to(jacobian.dtype)
        rows = torch.lerp(old, jacobian, rate[:, None])
        self.average.write(rows, indices)
        shares = self._move(rows @ rows.T, indices)
        return shares @ rows

    def _move(self, gramian: Tensor, indices: list[int] | None) -> Tensor:
        held = pick(self.shares, indices).to(gramian.dtype)
        mass = held.sum()
        # A share may fall to 0, and its task may be the only one in a batch.
        shares = torch.where(mass > 0, held / mass, 1 / len(held))
        pull = gramian @ shares + self.rho * shares
        rate = self.gamma * self.updates.to(gramian.dtype) ** -self.gamma_decay
        shares = torch.softmax(shares - rate * pull, 0)
        put(self.shares, indices, mass * shares)
        return shares

    def extra_repr(self) -> str:
        """Rates."""
        return (
            f"beta={self.beta:g}, beta_decay={self.beta_decay:g}, gamma={self.gamma:g}, "
            f"gamma_decay={self.gamma_decay:g}, rho={self.rho:g}"
        )
