"""Simplex weights near a direction, from two independent batches."""

from collections.abc import Iterable

import torch
from torch import Tensor

from polytask._checks import is_integer
from polytask._errors import UserError
from polytask._linalg import divide, onto_simplex
from polytask.weighting._base import GramianSolution, GramianStep, GramianWeighting
from polytask.weighting._shares import Shares
from polytask.weighting._values import check_number


class SDMGrad(GramianWeighting):
    r"""Stochastic direction-oriented descent: the shortest update, pulled towards the average gradient.

    .. math:: w = \arg\min_{w \in \Delta} \big\| J^\top (w + \lambda \tilde w) \big\|^2, \qquad
              \tilde w = \tfrac1T,

    approached by projected gradient steps with momentum from the last step's w, whose slope
    :math:`J_1 J_2^\top (w + \lambda \tilde w)` takes two independent batches. The update is that of a
    third batch with the weights :math:`(w + \lambda \tilde w) / (1 + \lambda)`. They sum to 1 over all
    tasks; absent tasks keep their share. A head's own parameters are scaled by the weights too.

    Args:
        strength: λ, the pull towards the average gradient, no unit, 0 or more.
        lr: Size of a step on the weights, above 0, for gradients with a mean norm of 1.
        momentum: Momentum of these steps, from 0 to 1.
        iterations: Number of steps in a call, 1 or more.

    Shape:
        - gramian: :math:`J_1 J_2^\top`, ``(tasks, tasks)``, not symmetric.
        - returns: ``(tasks,)``.

    Raises:
        UserError: If an argument is out of its range.

    Example:
        >>> import torch
        >>> SDMGrad(strength=0.0, lr=0.5, iterations=50)(torch.tensor([[1.0, 0.0], [0.0, 3.0]]))
        tensor([0.7500, 0.2500])

    When:
        As `CAGrad`, if small batches bias the weights and three of them a step are
        affordable.

    Reference:
        Xiao, Ban, Ji. Direction-oriented Multi-objective Learning: Simple and Provable Stochastic
        Algorithms. NeurIPS 2023, algorithm 1.

    Deviations:
        The product of the Jacobians is divided by the squared mean of its tasks' norms, and the steps
        have momentum, as in the authors' code; the paper has neither. TorchJD adds 1e-8 to that square,
        which changes the result for gradients of a norm near 1e-4; here nothing is added.
    """

    scale_heads = True
    batches_per_step = 3

    def __init__(
        self, strength: float = 0.3, lr: float = 10.0, momentum: float = 0.5, iterations: int = 20
    ) -> None:
        super().__init__()
        self.strength = check_number(strength, "SDMGrad.strength", least=0)
        self.lr = check_number(lr, "SDMGrad.lr", above=0)
        self.momentum = check_number(momentum, "SDMGrad.momentum", least=0, most=1)
        if not is_integer(iterations, 1):
            raise UserError("SDMGrad.iterations", "must be an integer of at least 1", repr(iterations))
        self.iterations = int(iterations)

    def setup(self, names: Iterable[str]) -> None:
        """Begin with equal weights."""
        super().setup(names)
        self.shares = Shares(len(self.names))

    def solve(self, step: GramianStep) -> GramianSolution:
        """The weights after the steps, and the pull."""
        scale = step.gramian.diagonal().clamp(min=0).sqrt().mean()
        product = divide(divide(step.gramian, scale), scale)
        moved = self.shares.move(lambda shares: self._descend(product, shares), step)
        pull = self.strength * moved.sum() / len(moved)
        return GramianSolution((moved + pull) / (1 + self.strength))

    def _descend(self, product: Tensor, shares: Tensor) -> Tensor:
        pull = self.strength / len(shares)
        velocity = torch.zeros_like(shares)
        for _ in range(self.iterations):
            velocity = self.momentum * velocity + product @ (shares + pull)
            shares = onto_simplex(shares - self.lr * velocity)
        return shares

    def extra_repr(self) -> str:
        """All arguments."""
        return (
            f"strength={self.strength:g}, lr={self.lr:g}, momentum={self.momentum:g}, "
            f"iterations={self.iterations}"
        )
