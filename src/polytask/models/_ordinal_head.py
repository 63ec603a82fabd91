"""A head for classes that have an order."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from polytask._checks import check_integer
from polytask.models._dense import Activation
from polytask.models._heads import PooledHead


class OrdinalHead(PooledHead):
    r"""One of several ordered levels for each sample: a score, divided by thresholds that keep their order.

    .. math:: P(y \le k) = \sigma(\theta_k - s(x)), \qquad \theta_0 < \theta_1 < \dots

    with *s* the score that the layers compute, and learned :math:`\theta`. The output is
    :math:`\log P(y = k)`, so that `torch.nn.CrossEntropyLoss` is the negative log-likelihood and
    classification metrics take it unchanged.

    Args:
        input_dim: Features of the representation.
        num_levels: Levels, 2 or more, numbered from 0 in their order.
        hidden_dims: Units of each hidden layer; None means no hidden layers.
        activation: A module, copied for each layer, or something that makes one when called. None means ReLU.
        dropout: Probability, in [0, 1); see `TaskHead`.

    Shape:
        - Input: (N, input_dim), or feature maps (N, input_dim, ...), which are averaged over their positions.
        - Output: (N, num_levels).

    Raises:
        UserError: If there are fewer than 2 levels, a size is not an integer of at least 1, the
            activation or the dropout cannot be used, or a representation has another shape.

    Example:
        >>> import torch
        >>> from polytask.models import OrdinalHead
        >>> log_probabilities = OrdinalHead(64, 5)(torch.rand(16, 64))
        >>> log_probabilities.shape, log_probabilities.exp().sum(dim=1).allclose(torch.ones(16))
        (torch.Size([16, 5]), True)

    Reference:
        McCullagh, "Regression Models for Ordinal Data", Journal of the Royal Statistical Society B 42, 1980,
        equation 2.4.

    Deviations:
        None.
    """

    def __init__(
        self,
        input_dim: int,
        num_levels: int,
        hidden_dims: Sequence[int] | None = None,
        activation: Activation = None,
        dropout: float = 0.0,
    ) -> None:
        num_levels = check_integer(num_levels, "num_levels", 2)
        super().__init__(input_dim, 1, hidden_dims, activation, dropout)
        self.output_dim = num_levels
        # Levels that are equally likely at a score of 0.
        even = torch.arange(1, num_levels) / num_levels
        start = torch.logit(even)
        self.lowest = nn.Parameter(start[:1].clone())
        self.gaps = nn.Parameter(torch.log(torch.expm1(start.diff())))

    def thresholds(self) -> Tensor:
        """The thresholds in their order, ``(num_levels - 1,)``, in units of the score."""
        steps = functional.softplus(self.gaps)
        return torch.cat([self.lowest, self.lowest + steps.cumsum(dim=0)])

    def forward(self, representation: Any) -> Tensor:
        """The logarithms of the levels' probabilities; see Shape.

        Args:
            representation: What the backbone returned, ``(N, features)`` or ``(N, features, ...)``.
        """
        score = super().forward(representation)
        distance = self.thresholds().to(score.dtype) - score
        below, above = functional.logsigmoid(distance), functional.logsigmoid(-distance)
        # Of two thresholds a < b: sigma(b) - sigma(a) = sigma(b) sigma(-a) (1 - exp(a - b)).
        gaps = torch.log(-torch.expm1(-functional.softplus(self.gaps))).to(score.dtype)
        between = below[:, 1:] + above[:, :-1] + gaps
        return torch.cat([below[:, :1], between, above[:, -1:]], dim=1)
