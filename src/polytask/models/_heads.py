"""Heads for one answer per sample: a class, several labels, numbers."""

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from polytask._checks import is_finite
from polytask._errors import UserError
from polytask.models._argument_checks import check_features
from polytask.models._dense import Activation
from polytask.models._task_head import ClassHead, TaskHead


class PooledHead(TaskHead):
    """A `TaskHead` that averages feature maps over their positions first."""

    def forward(self, representation: Any) -> Tensor:
        """The task's output; see Shape.

        Args:
            representation: What the backbone returned, ``(N, features)`` or ``(N, features, ...)``.
        """
        return super().forward(pooled(representation, self.input_dim))


def pooled(representation: Any, features: int) -> Tensor:
    """Feature maps, averaged over their positions; vectors as they are.

    Raises:
        UserError: If it is not a tensor of shape ``(N, features)`` or ``(N, features, ...)``.

    Example:
        >>> pooled(torch.tensor([[[1.0, 3.0]]]), 1)
        tensor([[2.]])
    """
    if not isinstance(representation, Tensor) or representation.dim() < 3:
        return check_features(representation, features)
    if representation.shape[1] != features:
        rule = f"must be a tensor of shape (N, {features}) or (N, {features}, ...) for this head"
        raise UserError("representation", rule, f"shape {tuple(representation.shape)}")
    return representation.flatten(2).mean(dim=2)


class ClassificationHead(PooledHead, ClassHead):
    """One of several classes for each sample, as logits; trains with `torch.nn.CrossEntropyLoss`.

    Args:
        input_dim: Features of the representation.
        num_classes: Classes.
        hidden_dims: Units of each hidden layer; None means no hidden layers.
        activation: A module, copied for each layer, or something that makes one when called. None means ReLU.
        dropout: Probability, in [0, 1); see `TaskHead`.

    Shape:
        - Input: (N, input_dim), or feature maps (N, input_dim, ...), which are averaged over their positions.
        - Output: (N, num_classes).

    Raises:
        UserError: If a size is not an integer of at least 1, the activation or the dropout cannot be used,
            or a representation has another shape.

    Example:
        >>> import torch
        >>> from polytask.models import ClassificationHead
        >>> ClassificationHead(64, 10)(torch.rand(16, 64, 7, 7)).shape
        torch.Size([16, 10])
    """


class MultiLabelHead(PooledHead):
    r"""Any number of labels for each sample, as logits; trains with `torch.nn.BCEWithLogitsLoss`.

    Args:
        input_dim: Features of the representation.
        num_labels: Labels.
        hidden_dims: Units of each hidden layer; None means no hidden layers.
        activation: A module, copied for each layer, or something that makes one when called. None means ReLU.
        dropout: Probability, in [0, 1); see `TaskHead`.
        prior: How often a label is set, in (0, 1). The last bias starts at :math:`\log(p / (1 - p))`, so that
            training does not have to learn first that labels are rare.

    Shape:
        - Input: (N, input_dim), or feature maps (N, input_dim, ...), which are averaged over their positions.
        - Output: (N, num_labels).

    Raises:
        UserError: If a size is not an integer of at least 1, a number is out of its range, the activation
            cannot be used, or a representation has another shape.

    Example:
        >>> import torch
        >>> from polytask.models import MultiLabelHead
        >>> head = MultiLabelHead(64, 5, prior=0.01)
        >>> head(torch.zeros(16, 64)).sigmoid()[0]
        tensor([0.0100, 0.0100, 0.0100, 0.0100, 0.0100], grad_fn=<SelectBackward0>)

    Reference:
        Lin, Goyal, Girshick, He, Dollár, "Focal Loss for Dense Object Detection", ICCV 2017, section 3.3,
        for ``prior``.
    """

    def __init__(
        self,
        input_dim: int,
        num_labels: int,
        hidden_dims: Sequence[int] | None = None,
        activation: Activation = None,
        dropout: float = 0.0,
        *,
        prior: float | None = None,
    ) -> None:
        super().__init__(input_dim, num_labels, hidden_dims, activation, dropout)
        if prior is not None:
            if not is_finite(prior) or not 0 < prior < 1:
                raise UserError("prior", "must be a number above 0 and below 1", repr(prior))
            *_, last = self.layers.parameters()
            nn.init.constant_(last, math.log(prior / (1 - prior)))


class RegressionHead(PooledHead):
    r"""One or several numbers for each sample; trains with `torch.nn.MSELoss` and similar losses.

    With bounds, the output is :math:`\text{low} + (\text{high} - \text{low}) \, \sigma(z)`.

    Args:
        input_dim: Features of the representation.
        output_dim: Numbers for each sample.
        hidden_dims: Units of each hidden layer; None means no hidden layers.
        activation: A module, copied for each layer, or something that makes one when called. None means ReLU.
        dropout: Probability, in [0, 1); see `TaskHead`.
        low: Lower bound of every number, in the target's unit.
        high: Upper bound of every number, in the target's unit.

    Shape:
        - Input: (N, input_dim), or feature maps (N, input_dim, ...), which are averaged over their positions.
        - Output: (N, output_dim).

    Raises:
        UserError: If a size is not an integer of at least 1, one bound is given without the other or not
            below it, the activation or the dropout cannot be used, or a representation has another shape.

    Example:
        >>> import torch
        >>> from polytask.models import RegressionHead
        >>> head = RegressionHead(64, low=0.0, high=100.0)
        >>> percent = head(100 * torch.randn(16, 64))
        >>> percent.shape, bool((percent >= 0).all() and (percent <= 100).all())
        (torch.Size([16, 1]), True)
    """

    def __init__(
        self,
        input_dim: int,
        output_dim: int = 1,
        hidden_dims: Sequence[int] | None = None,
        activation: Activation = None,
        dropout: float = 0.0,
        *,
        low: float | None = None,
        high: float | None = None,
    ) -> None:
        super().__init__(input_dim, output_dim, hidden_dims, activation, dropout)
        self.bounds = None if low is None and high is None else _bounds(low, high)

    def forward(self, representation: Any) -> Tensor:
        """The numbers; see Shape.

        Args:
            representation: What the backbone returned, ``(N, features)`` or ``(N, features, ...)``.
        """
        output = super().forward(representation)
        if self.bounds is None:
            return output
        low, high = self.bounds
        return low + (high - low) * torch.sigmoid(output)


def _bounds(low: float | None, high: float | None) -> tuple[float, float]:
    if is_finite(low) and is_finite(high) and low < high:
        return float(low), float(high)
    rule = "must be two numbers with low below high, or both None"
    raise UserError("low, high", rule, f"{low} and {high}")
