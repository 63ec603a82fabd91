"""Linear layers as a head, for most tasks."""

from collections.abc import Sequence
from typing import Any

from torch import Tensor, nn

from polytask.models._argument_checks import check_features
from polytask.models._dense import Activation, dense


class TaskHead(nn.Module):
    """Linear layers from the representation to a task's output, which is not activated.

    It acts on the last dimension, so that a head on tokens labels each of them.

    Args:
        input_dim: Features of the representation.
        output_dim: Values per sample: classes, regression targets, labels.
        hidden_dims: Units of each hidden layer; None means no hidden layers.
        activation: A module, copied for each layer, or something that makes one when called, such as a class.
            None means ReLU. It is used between layers only.
        dropout: Probability, in [0, 1), of zeroing a value that enters a layer after the first; without
            hidden layers, one that enters the only layer.

    Shape:
        - Input: (..., input_dim), such as (N, input_dim), or (N, tokens, input_dim).
        - Output: (..., output_dim).

    Raises:
        UserError: If a size is not an integer of at least 1, the activation or the dropout cannot be used,
            or a representation is not a tensor with ``input_dim`` features.

    Example:
        >>> import torch
        >>> from polytask.models import TaskHead
        >>> head = TaskHead(64, 10, hidden_dims=[32], activation=torch.nn.GELU(), dropout=0.1)
        >>> head(torch.rand(16, 64)).shape
        torch.Size([16, 10])
    """

    def __init__(
        self,
        input_dim: int,
        output_dim: int,
        hidden_dims: Sequence[int] | None = None,
        activation: Activation = None,
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        self.layers = dense(input_dim, hidden_dims, output_dim, activation, dropout)
        self.input_dim = input_dim
        self.output_dim = output_dim

    def forward(self, representation: Any) -> Tensor:
        """The task's output; see Shape.

        Args:
            representation: What the backbone returned.
        """
        output: Tensor = self.layers(check_features(representation, self.input_dim))
        return output


class ClassHead(TaskHead):
    """A `TaskHead` whose values are the logits of classes."""

    def __init__(
        self,
        input_dim: int,
        num_classes: int,
        hidden_dims: Sequence[int] | None = None,
        activation: Activation = None,
        dropout: float = 0.0,
    ) -> None:
        super().__init__(input_dim, num_classes, hidden_dims, activation, dropout)
