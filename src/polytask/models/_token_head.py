"""A head that labels every token."""

from typing import Any

from torch import Tensor

from polytask._errors import UserError
from polytask.models._task_head import ClassHead


class TokenHead(ClassHead):
    """One of several classes for each token, as logits; trains with `torch.nn.CrossEntropyLoss`.

    The classes are in dimension 1, as that loss requires; targets are ``(N, tokens)``, with ``ignore_index``
    for tokens without a label.

    Args:
        input_dim: Features of a token.
        num_classes: Classes.
        hidden_dims: Units of each hidden layer; None means no hidden layers.
        activation: A module, copied for each layer, or something that makes one when called. None means ReLU.
        dropout: Probability, in [0, 1); see `TaskHead`.

    Shape:
        - Input: (N, tokens, input_dim).
        - Output: (N, num_classes, tokens).

    Raises:
        UserError: If a size is not an integer of at least 1, the activation or the dropout cannot be used,
            or a representation has another shape.

    Example:
        >>> import torch
        >>> from polytask.models import TokenHead
        >>> TokenHead(64, 9)(torch.rand(16, 50, 64)).shape
        torch.Size([16, 9, 50])
    """

    def forward(self, representation: Any) -> Tensor:
        """The tokens' logits; see Shape.

        Args:
            representation: What the backbone returned.

        Raises:
            UserError: If it is no tensor of tokens.
        """
        if isinstance(representation, Tensor) and representation.dim() != 3:
            rule = f"must be tokens of shape (N, tokens, {self.input_dim}) for this head"
            raise UserError("representation", rule, f"shape {tuple(representation.shape)}")
        return super().forward(representation).movedim(-1, 1)
