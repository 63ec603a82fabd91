"""Weights learned so that all tasks train at similar rates."""

from collections.abc import Iterable

import torch
from torch import Tensor

from polytask._linalg import divide
from polytask.weighting._base import Gradients, GramianSolution, GramianStep, GramianWeighting
from polytask.weighting._state import TaskAdam, pick, put
from polytask.weighting._values import check_number


class GradNorm(GramianWeighting):
    r"""Gradient normalisation: weights are learned until slow tasks have the larger gradients.

    This is the weighting. `polytask.losses.GradNorm` is a `polytask.losses.MultiTaskLoss` with this
    weighting.

    With the norms :math:`n_i` of the tasks' gradients and the relative inverse training rates
    :math:`r_i = (L_i / L_i^{(0)}) / \operatorname{mean}_j (L_j / L_j^{(0)})`, each step minimises

    .. math:: \sum_i \big| w_i n_i - \operatorname{mean}_j(w_j n_j) \, r_i^\alpha \big|

    by one step of a separate Adam, with the mean and the rates held constant; then all weights are scaled
    to sum to the number of tasks. All are 1 at first. A step uses the weights from before its own change.
    Gradients are those of the last shared layer by default. A head's own parameters are scaled by the
    weights too.

    Args:
        alpha: How strongly slow tasks are accelerated, no unit, 0 or more.
        lr: Step size of the weights' Adam, above 0.

    Shape:
        - gramian: ``(tasks, tasks)``.
        - losses: ``(tasks,)``, 0 or more; needed.
        - returns: ``(tasks,)``.

    Raises:
        UserError: If alpha is below 0 or the step size not above 0.

    Example:
        >>> import torch
        >>> weighting, losses = GradNorm(), torch.tensor([1.0, 1.0])
        >>> gramian = torch.tensor([[1.0, 0.0], [0.0, 9.0]])
        >>> weighting(gramian, losses=losses), weighting(gramian, losses=losses)
        (tensor([1., 1.]), tensor([1.0250, 0.9750]))

    When:
        Tasks should train at similar rates, and gradients of one layer are affordable.

    Reference:
        Chen, Badrinarayanan, Lee, Rabinovich. GradNorm: Gradient Normalization for Adaptive Loss
        Balancing in Deep Multitask Networks. ICML 2018, equations 1 and 2 and algorithm 1.

    Deviations:
        The first loss of a task is that of the first step in which it is present. An absent task's weight and
        moments stay unchanged, and the weights of the present tasks keep their sum. A weight does not go
        below 0; if all present ones would, they stay unchanged.
    """

    gradients: Gradients | None = "last_shared"
    scale_heads = True
    needs_losses = True
    unsolved = "training rates need losses of 0 or more"
    value: Tensor
    initial: Tensor

    def __init__(self, alpha: float = 1.5, lr: float = 0.025) -> None:
        super().__init__()
        self.alpha = check_number(alpha, "GradNorm.alpha", least=0)
        self.lr = check_number(lr, "GradNorm.lr", above=0)

    def setup(self, names: Iterable[str]) -> None:
        """Begin with weights of 1."""
        super().setup(names)
        self.register_buffer("value", torch.ones(len(self.names)))
        self.register_buffer("initial", torch.full((len(self.names),), torch.nan))
        self.adam = TaskAdam(len(self.names), self.lr)

    def solve(self, step: GramianStep) -> GramianSolution:
        """The weights so far; then one step of Adam."""
        norms = step.gramian.diagonal().clamp(min=0).sqrt()
        weights = pick(self.value, step.indices).to(norms, copy=True)
        target = (weights * norms).mean() * self._rates(step) ** self.alpha
        self.adam.step(self.value, norms * (weights * norms - target).sign(), step.indices)
        moved = pick(self.value, step.indices).to(norms).clamp(min=0)
        total = moved.sum()
        put(self.value, step.indices, torch.where(total > 0, moved * weights.sum() / total, weights))
        return GramianSolution(weights, target.isfinite().all())

    def _rates(self, step: GramianStep) -> Tensor:
        assert step.losses is not None
        losses = step.losses
        initial = pick(self.initial, step.indices).to(losses)
        initial = torch.where(initial.isnan(), losses, initial)
        put(self.initial, step.indices, initial)
        ratios = torch.where(losses < 0, torch.nan, divide(losses, initial))
        return divide(ratios, ratios.mean())

    def extra_repr(self) -> str:
        """The exponent and the step size."""
        return f"alpha={self.alpha:g}, lr={self.lr:g}"
