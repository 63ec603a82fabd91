"""Weights from the excess risk of each task."""

import math
from collections.abc import Iterable, Sequence

import torch
from torch import Tensor

from polytask._checks import check_number
from polytask.weighting._base import JacobianAggregator
from polytask.weighting._state import pick, put
from polytask.weighting._task_rows import TaskRows


class ExcessMTL(JacobianAggregator):
    r"""Robust multi-task learning with excess risks: a task is weighted by its excess risk.

    With the sum :math:`S_i` of the squared gradients so far, the excess risk of task *i* and the
    update are

    .. math::
        e_i &= \sum_p \frac{J_{ip}^2}{\sqrt{S_{ip} + 10^{-7}}} \Big/ e_i^{(0)}, \qquad
        w_i \leftarrow w_i \exp(\eta e_i) \\
        d &= \sum_i w_i J_i,

    where :math:`e_i^{(0)}` is the task's first value, at which its weight stays 1. A noisy task that cannot
    improve further has small gradients and a small weight. The weights of the present tasks sum to their
    number; the heads follow them too (`head_weights`).

    Args:
        step_size: :math:`\eta`, no unit, above 0.

    Shape:
        - jacobian: ``(tasks, parameters)``.
        - returns: ``(parameters,)``.

    Raises:
        UserError: If the step size is not above 0, or the number of parameters changes.

    Example:
        >>> import torch
        >>> weighting, jacobian = ExcessMTL(), torch.tensor([[1.0, 0.0], [0.0, 2.0]])
        >>> weighting(jacobian)
        tensor([1., 2.])
        >>> weighting(jacobian * torch.tensor([[2.0], [1.0]]))
        tensor([2.9873, 1.0127])

    When:
        Labels of some tasks are noisy, and a loss that stays high should not attract all the
        weight.

    Reference:
        He, Zhou, Zhang, Yun, Xu, Zeng, Chilimbi, Zhao. Robust Multi-Task Learning with Excess Risks.
        ICML 2024, equations 6, 7 and 9.

    Deviations:
        The weights sum to the number of tasks, as in the authors' code; the paper's sum to 1. They are kept
        as logarithms, which do not overflow. A first value below 1e-7 counts as 1e-7. The paper averages the
        first three epochs for the first value. An absent task's state stays unchanged; the weights of present
        tasks change within the share that these tasks have together.
    """

    logits: Tensor
    initial: Tensor

    def __init__(self, step_size: float = 1.0) -> None:
        super().__init__()
        self.step_size = check_number(step_size, "ExcessMTL.step_size", above=0)

    def setup(self, names: Iterable[str]) -> None:
        """Begin with equal weights."""
        super().setup(names)
        self.squares = TaskRows(len(self.names))
        self.register_buffer("logits", torch.zeros(len(self.names)))
        self.register_buffer("initial", torch.full((len(self.names),), math.nan))

    def aggregate(self, jacobian: Tensor, indices: list[int] | None, losses: Tensor | None) -> Tensor:
        """The weighted sum of the rows."""
        squares = jacobian.square()
        sums = self.squares.read(jacobian, indices).to(squares.dtype) + squares
        self.squares.write(sums, indices)
        self._move((squares / (sums + 1e-7).sqrt()).sum(1), indices)
        return self._weights(indices).to(jacobian.dtype) @ jacobian

    def _move(self, excess: Tensor, indices: list[int] | None) -> None:
        initial = pick(self.initial, indices)
        first = initial.isnan()
        initial = torch.where(first, excess.clamp(min=1e-7).to(initial), initial)
        put(self.initial, indices, initial)
        held = pick(self.logits, indices)
        logits = held + torch.where(first, 0.0, self.step_size * (excess / initial).to(held))
        # The present tasks keep their sum; this also keeps the logits near 0.
        put(self.logits, indices, logits + held.logsumexp(0) - logits.logsumexp(0))

    def _weights(self, indices: list[int] | None) -> Tensor:
        logits = pick(self.logits, indices)
        return len(logits) * torch.softmax(logits, 0)

    def head_weights(self, losses: Tensor, names: Sequence[str] | None = None) -> Tensor:
        """The weights of the tasks.

        Args:
            losses: Losses of the present tasks.
            names: Which tasks these are; None if all are present.
        """
        return self._weights(self.indices(names)).to(losses.dtype)

    def extra_repr(self) -> str:
        """The step size."""
        return f"step_size={self.step_size:g}"
