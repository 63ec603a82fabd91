"""Losses balanced by logarithms, gradients by their norms."""

from collections.abc import Iterable, Sequence

import torch
from torch import Tensor

from polytask._checks import check_number
from polytask._errors import UserError
from polytask.weighting._base import JacobianAggregator
from polytask.weighting._bounded import BoundCheck
from polytask.weighting._state import pick, put
from polytask.weighting._task_rows import TaskRows

_EPSILON = 1e-8


class DBMTL(JacobianAggregator):
    r"""Dual-balancing multi-task learning: equal losses by logarithms, equal gradients by norms.

    Step *k* moves a running average *Y* (0 at first) of the gradients of the logarithms, whose rows
    are then scaled to the longest:

    .. math::
        \hat J_i &= J_i / (L_i + 10^{-8}) \\
        Y &\leftarrow \beta_k Y + (1 - \beta_k) \hat J, \qquad \beta_k = \beta k^{-s} \\
        d &= \sum_i \frac{\max_j \lVert Y_j \rVert}{\lVert Y_i \rVert + 10^{-8}} Y_i

    The weights are not normalised: if all rows agree, *d* is as long as *T* rows of the largest norm. The
    heads follow the logarithms too (`head_weights`). Each task counts its own steps.

    Args:
        beta: :math:`\beta`, share of the old average at the first step, from 0 to below 1.
        beta_decay: *s*, 0 or more.

    Shape:
        - jacobian: ``(tasks, parameters)``.
        - losses: ``(tasks,)``, above 0.
        - returns: ``(parameters,)``.

    Raises:
        UserError: If an argument is out of range, there are no losses, a loss is not above 0, or
            the number of parameters changes.

    Example:
        >>> import torch
        >>> jacobian, losses = torch.tensor([[4.0, 0.0], [0.0, 1.0]]), torch.tensor([2.0, 0.25])
        >>> DBMTL(beta=0.0)(jacobian, losses=losses)
        tensor([4., 4.])

    When:
        Both the losses and the gradients differ much in size.

    Reference:
        Lin, Jiang, Ye, Zhang, Chen, Chen, Liu, Kwok. Dual-Balancing for Multi-Task Learning. arXiv
        2308.12029, 2023, algorithm 1.

    Deviations:
        None; an absent task's row stays as it is, and the longest row is one of the present tasks'.
    """

    steps: Tensor

    def __init__(self, beta: float = 0.9, beta_decay: float = 0.5) -> None:
        super().__init__()
        self.beta = check_number(beta, "DBMTL.beta", least=0, below=1)
        self.beta_decay = check_number(beta_decay, "DBMTL.beta_decay", least=0)

    def setup(self, names: Iterable[str]) -> None:
        """Begin without an average."""
        super().setup(names)
        self.average = TaskRows(len(self.names))
        self.bound_check = BoundCheck([0.0] * len(self.names))
        self.register_buffer("steps", torch.zeros(len(self.names), dtype=torch.int64))

    def check(self) -> None:
        """Raise if a loss was not above 0 since the last call."""
        self.bound_check.check("DBMTL", self.names, "Use positive losses or another weighting")

    def aggregate(self, jacobian: Tensor, indices: list[int] | None, losses: Tensor | None) -> Tensor:
        """The sum of the averaged rows, all scaled to the longest.

        Args:
            jacobian: A row for each present task.
            indices: Which tasks these are; None if all are present.
            losses: Their losses.

        Raises:
            UserError: If the losses are not given, or a loss is out of range.
        """
        if losses is None:
            raise UserError("DBMTL", "the losses of the tasks are required", "none", "Pass losses=")
        self.bound_check.note(losses, indices)
        self._check_now(losses)
        steps = pick(self.steps, indices) + 1
        put(self.steps, indices, steps)
        share = self.beta * steps.to(jacobian.dtype) ** -self.beta_decay
        logs = jacobian / (losses + _EPSILON)[:, None]
        rows = torch.lerp(logs, self.average.read(jacobian, indices).to(logs.dtype), share[:, None])
        self.average.write(rows, indices)
        norms = torch.linalg.vector_norm(rows, dim=1)
        update: Tensor = (norms.max() / (norms + _EPSILON)) @ rows
        return update

    def head_weights(self, losses: Tensor, names: Sequence[str] | None = None) -> Tensor:
        """The derivatives of the logarithms, 1 / (loss + 1e-8).

        Args:
            losses: Losses of the present tasks.
            names: Which tasks these are; None if all are present.
        """
        return 1 / (losses + _EPSILON)

    def extra_repr(self) -> str:
        """Rates."""
        return f"beta={self.beta:g}, beta_decay={self.beta_decay:g}"
