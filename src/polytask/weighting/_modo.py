"""Simplex weights that follow two independent batches."""

from collections.abc import Iterable

from torch import Tensor

from polytask._linalg import onto_simplex
from polytask.weighting._base import GramianSolution, GramianStep, GramianWeighting
from polytask.weighting._shares import Shares
from polytask.weighting._values import check_number


class MoDo(GramianWeighting):
    r"""Multi-objective gradient with double sampling: one projected gradient step on the weights.

    .. math:: w \leftarrow \Pi_\Delta \big( w - \gamma (J_1 J_2^\top + \rho I)\, w \big),

    with the Jacobians of two independent batches, which makes the step's expectation right, and the
    projection on the simplex. The update is that of a third batch with these weights. They sum to 1
    over all tasks; absent tasks keep their share. A head's own parameters are scaled by the weights too.

    Args:
        step_size: γ, in units of one over a squared gradient, above 0.
        regularization: ρ, in units of a squared gradient, 0 or more.

    Shape:
        - gramian: :math:`J_1 J_2^\top`, ``(tasks, tasks)``, not symmetric.
        - returns: ``(tasks,)``.

    Raises:
        UserError: If the step size is not above 0, or ρ is below 0.

    Example:
        >>> import torch
        >>> MoDo(step_size=0.1)(torch.tensor([[1.0, 0.0], [0.0, 3.0]]))
        tensor([0.5500, 0.4500])

    When:
        As `MGDA`, if small batches bias the weights and three of them a step are
        affordable.

    Reference:
        Chen, Fernando, Ying, Chen. Three-Way Trade-Off in Multi-Objective Learning: Optimization,
        Generalization and Conflict-Avoidance. NeurIPS 2023, algorithm 1.

    Deviations:
        A third batch for the update, as in the authors' code with three gradients; the paper uses the
        first.
    """

    scale_heads = True
    batches_per_step = 3

    def __init__(self, step_size: float = 1e-3, regularization: float = 0.1) -> None:
        super().__init__()
        self.step_size = check_number(step_size, "MoDo.step_size", above=0)
        self.regularization = check_number(regularization, "MoDo.regularization", least=0)

    def setup(self, names: Iterable[str]) -> None:
        """Begin with equal weights."""
        super().setup(names)
        self.shares = Shares(len(self.names))

    def solve(self, step: GramianStep) -> GramianSolution:
        """The weights after the step."""
        return GramianSolution(self.shares.move(lambda shares: self._step(step.gramian, shares), step))

    def _step(self, product: Tensor, shares: Tensor) -> Tensor:
        slope = product @ shares + self.regularization * shares
        return onto_simplex(shares - self.step_size * slope)

    def extra_repr(self) -> str:
        """The step size and the regularisation."""
        return f"step_size={self.step_size:g}, regularization={self.regularization:g}"
