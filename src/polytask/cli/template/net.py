"""The shared part of the model; any torch module does."""

from torch import Tensor, nn


class Backbone(nn.Module):
    """Two layers over a curve of 32 points.

    Args:
        width: Units of each layer, and of the representation that the heads get.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(32, width), nn.ReLU(), nn.Linear(width, width), nn.ReLU())

    def forward(self, x: Tensor) -> Tensor:
        """The representation, ``(rows, width)``.

        Args:
            x: Curves, ``(rows, 32)``.
        """
        representation: Tensor = self.layers(x)
        return representation
