"""A small convolutional network."""

from collections.abc import Sequence

from torch import Tensor, nn

from polytask._errors import UserError
from polytask.models._argument_checks import check_sides, check_size

CHANNELS = (32, 64)
HIDDEN = 128
SMALLEST = 4


class SimpleCNN(nn.Module):
    """Two convolutions and two linear layers, for small images; as a backbone or as a whole network.

    Conv 3×3, 32 channels, padding 1 → ReLU → max-pool 2 → Conv 3×3, 64 channels, padding 1 → ReLU →
    max-pool 2 → flatten → Linear, 128 → ReLU → Linear, ``num_classes``. No activation follows the last layer.

    Args:
        in_channels: Channels of an image.
        num_classes: Units of the last layer; as a backbone, the size of the representation. Also readable as
            ``output_dim``.
        img_size: Height and width in pixels, as one number or as a pair; at least 4.

    Shape:
        - Input: (N, in_channels, height, width).
        - Output: (N, num_classes).

    Raises:
        UserError: If a size is not an integer of at least 1, an image side is below 4, or an input has
            another shape.

    Example:
        >>> import torch
        >>> from polytask.models import SimpleCNN
        >>> model = SimpleCNN(1, 10, 8)
        >>> model(torch.rand(32, 1, 8, 8)).shape, model.output_dim
        (torch.Size([32, 10]), 10)
    """

    def __init__(self, in_channels: int, num_classes: int, img_size: int | Sequence[int]) -> None:
        super().__init__()
        self.output_dim = check_size(num_classes, "num_classes")
        height, width = check_sides(img_size, "img_size")
        if min(height, width) < SMALLEST:
            rule = f"must be at least {SMALLEST} pixels, since two poolings halve it"
            raise UserError("img_size", rule, img_size)
        self.input_shape = (check_size(in_channels, "in_channels"), height, width)
        first, second = CHANNELS
        self.features = nn.Sequential(
            nn.Conv2d(in_channels, first, kernel_size=3, padding=1),
            nn.ReLU(),
            nn.MaxPool2d(2),
            nn.Conv2d(first, second, kernel_size=3, padding=1),
            nn.ReLU(),
            nn.MaxPool2d(2),
        )
        self.classifier = nn.Sequential(
            nn.Linear(second * (height // 4) * (width // 4), HIDDEN),
            nn.ReLU(),
            nn.Linear(HIDDEN, num_classes),
        )

    def forward(self, x: Tensor) -> Tensor:
        """The outputs of a batch; see Shape.

        Args:
            x: The images.

        Raises:
            UserError: If the images have another shape.
        """
        if tuple(x.shape[1:]) != self.input_shape:
            needed = ", ".join(str(size) for size in self.input_shape)
            fix = "Add the dimension of channels" if x.dim() == 3 else None
            raise UserError(
                "SimpleCNN", f"images must have the shape (N, {needed})", f"shape {tuple(x.shape)}", fix
            )
        output: Tensor = self.classifier(self.features(x).flatten(1))
        return output
