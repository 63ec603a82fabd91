"""Weights that make all losses fall at one rate, from losses alone."""

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import ClassVar

import torch
from torch import Tensor

from polytask.weighting._bounded import BoundedLossWeighting
from polytask.weighting._state import TaskAdam, pick, put
from polytask.weighting._values import check_number, values_by_task

_EPSILON = 1e-8


class FAMO(BoundedLossWeighting):
    r"""Fast adaptive multitask optimisation: the loss that falls least is raised most.

    With the logits :math:`\xi`, 0 at first, the bounds *b* and :math:`D_i = L_i - b_i + 10^{-8}`,

    .. math:: c \sum_i z_i \log D_i, \qquad z = \operatorname{softmax}(\xi), \qquad
        c = \operatorname{sg}\Bigl[\Bigl(\sum_i z_i / D_i\Bigr)^{-1}\Bigr],

    where sg stops the gradient. The weights :math:`c z_i / D_i` of the present tasks sum to 1. After
    the model's step the losses of the same batch are computed again, and Adam changes the logits
    along :math:`-(\operatorname{diag} z - z z^\top)\,\delta` with
    :math:`\delta_i = \log D_i^{\text{before}} - \log D_i^{\text{after}}`.

    The logits and their Adam are buffers, which no optimizer of the model changes. Within an accumulation
    window, the losses before and after are those of its last batch. The model is in training mode for both,
    so that running statistics are updated with that batch twice.

    Args:
        lr: Step size of the logits, no unit.
        weight_decay: Weight decay of the logits, no unit.
        lower_bounds: *b* by task, a bound that the loss stays above, in the loss's unit; 0 for the others.

    Shape:
        - losses: ``(tasks,)``, above their bounds.
        - returns: ``()``.

    Raises:
        UserError: If an argument is out of range, a bound is for no task, or a loss is not above
            its bound.

    Example:
        >>> import torch
        >>> weighting = FAMO()
        >>> weighting.setup(["digit", "height"])
        >>> weighting.weights(torch.tensor([1.0, 3.0]))
        tensor([0.7500, 0.2500])
        >>> _ = weighting(torch.tensor([1.0, 3.0]))
        >>> weighting.after_step(torch.tensor([0.5, 3.0]))
        >>> weighting.logits
        tensor([-0.0250,  0.0250])

    When:
        All losses should fall at one rate, and gradients by task cost too much.

    Reference:
        Liu, Feng, Stone, Liu. FAMO: Fast Adaptive Multitask Optimization. NeurIPS 2023, algorithm 1.

    Deviations:
        The authors' code has a weight decay of 1e-5, the paper 1e-3. An absent task's logit and moments stay
        unchanged, and the softmax is over the present tasks.
    """

    remeasures: ClassVar[bool] = True
    fix: ClassVar[str] = "Pass a bound that is never reached: FAMO(lower_bounds={...})"
    logits: Tensor
    before: Tensor
    bounds: Tensor

    def __init__(
        self,
        lr: float = 0.025,
        weight_decay: float = 1e-3,
        lower_bounds: Mapping[str, float] | None = None,
    ) -> None:
        super().__init__()
        self.lr = check_number(lr, "FAMO.lr", least=0)
        self.weight_decay = check_number(weight_decay, "FAMO.weight_decay", least=0)
        self.lower_bounds = lower_bounds

    def setup(self, names: Iterable[str]) -> None:
        """Begin with equal logits."""
        super().setup(names)
        bounds = self.bound_check.bounds
        self.register_buffer("bounds", torch.tensor(bounds), persistent=False)
        self.register_buffer("logits", torch.zeros(len(bounds)))
        self.register_buffer("before", torch.full((len(bounds),), math.nan))
        self.adam = TaskAdam(len(bounds), self.lr, self.weight_decay)

    def bounds_by_task(self) -> list[float]:
        """The bounds that were given."""
        return values_by_task(self.lower_bounds, self.names, "FAMO.lower_bounds", 0.0)

    def observe(self, losses: Tensor, indices: list[int] | None) -> None:
        """Keep the losses for `after_step`."""
        super().observe(losses, indices)
        put(self.before, indices, losses)

    def scalar(self, losses: Tensor, indices: list[int] | None) -> Tensor:
        """The weighted sum of the logarithms."""
        shares = torch.softmax(pick(self.logits, indices).to(losses.dtype), 0)
        distances = self._distances(losses, indices)
        factor = 1 / (shares / distances.detach()).sum()
        return factor * (shares * torch.log(distances)).sum()

    def _distances(self, losses: Tensor, indices: list[int] | None) -> Tensor:
        return losses - pick(self.bounds, indices) + _EPSILON

    @torch.no_grad()
    def after_step(self, losses: Tensor, names: Sequence[str] | None = None) -> None:
        """Change the logits by how far each loss fell.

        Args:
            losses: The losses of the step's batch, computed again after the step.
            names: Which tasks these are; None if all are present.
        """
        losses, indices = self._checked(losses.detach(), names)
        super().observe(losses, indices)
        before = self._distances(pick(self.before, indices).to(losses.dtype), indices)
        fall = torch.log(before) - torch.log(self._distances(losses, indices))
        shares = torch.softmax(pick(self.logits, indices).to(losses.dtype), 0)
        self.adam.step(self.logits, shares * (fall - (shares * fall).sum()), indices)

    def extra_repr(self) -> str:
        """Step size, decay and bounds."""
        bounds = f", lower_bounds={dict(self.lower_bounds)}" if self.lower_bounds else ""
        return f"lr={self.lr:g}, weight_decay={self.weight_decay:g}{bounds}"
