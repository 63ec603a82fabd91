"""A multilayer perceptron."""

import math
from collections.abc import Sequence

from torch import Tensor, nn

from polytask._errors import UserError
from polytask.models._dense import Activation, dense


class MLP(nn.Module):
    """Linear layers with an activation between them; as a backbone or as a whole network.

    ``input_dim → hidden_dims[0] → … → output_dim``; the activation follows every layer but the last.

    Args:
        input_dim: Values per sample. Inputs with more dimensions, such as images, are flattened.
        hidden_dims: Units of each hidden layer; may be empty.
        output_dim: Units of the last layer.
        activation: A module, copied for each layer, or something that makes one when called, such as a class.
            None means ReLU.
        dropout: Probability, in [0, 1), of zeroing a value that enters a layer after the first; without
            hidden layers, one that enters the only layer.
        activate_output: Whether the activation follows the last layer too, as it should before linear heads:
            ``MLP(784, [], 100, activate_output=True)`` is the backbone of 784-100-{10, 2}.

    Shape:
        - Input: (N, ...) with ``input_dim`` values per sample, such as (N, 1, 28, 28) for 784.
        - Output: (N, output_dim).

    Raises:
        UserError: If a size is not an integer of at least 1, the activation or the dropout cannot be used,
            or an input does not have ``input_dim`` values per sample.

    Example:
        >>> import torch
        >>> from polytask.models import MLP
        >>> model = MLP(784, [100, 50], 10)
        >>> model(torch.rand(32, 1, 28, 28)).shape, model.output_dim
        (torch.Size([32, 10]), 10)
    """

    def __init__(
        self,
        input_dim: int,
        hidden_dims: Sequence[int],
        output_dim: int,
        *,
        activation: Activation = None,
        dropout: float = 0.0,
        activate_output: bool = False,
    ) -> None:
        super().__init__()
        self.layers = dense(input_dim, hidden_dims, output_dim, activation, dropout, activate_output)
        self.input_dim = input_dim
        self.output_dim = output_dim

    def forward(self, x: Tensor) -> Tensor:
        """The outputs of a batch; see Shape.

        Args:
            x: The batch.

        Raises:
            UserError: If it is no tensor, or its rows have another number of values.
        """
        rule = f"inputs must have the shape (N, {self.input_dim})"
        if not isinstance(x, Tensor):
            raise UserError("MLP", rule, f"a {type(x).__name__}")
        if x.dim() < 2 or math.prod(x.shape[1:]) != self.input_dim:
            raise UserError("MLP", rule, f"shape {tuple(x.shape)}")
        output: Tensor = self.layers(x.flatten(1))
        return output
