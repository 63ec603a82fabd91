"""A head that labels every pixel."""

from collections import OrderedDict
from collections.abc import Sequence
from itertools import pairwise
from typing import Any, Literal

from torch import Tensor, nn
from torch.nn import functional

from polytask._errors import UserError
from polytask.models._argument_checks import check_sides, check_size, check_sizes

Mode = Literal["bilinear", "nearest"]


class DenseHead(nn.Module):
    """Values for every pixel, as many as the target has: for segmentation, depth, normals.

    3×3 convolutions with ReLU, then a 1×1 convolution, not activated, then interpolation to its size.

    Args:
        input_dim: Channels of the feature maps.
        output_dim: Values for each pixel: classes, or 1 for depth.
        hidden_dims: Channels of each 3×3 convolution; None means none.
        size: Height and width of the target in pixels, as one number or as a pair.
        scale: The factor of height and width instead, for inputs of different sizes; the backbone's stride.
            1 if neither is given.
        mode: The mode of the interpolation.

    Shape:
        - Input: (N, input_dim, height, width).
        - Output: ``(N, output_dim, *size)``, or ``(N, output_dim, scale * height, scale * width)``.

    Raises:
        UserError: If a size is not an integer of at least 1, size and scale are both given, the mode is
            unknown, or a representation has another shape.

    Example:
        >>> import torch
        >>> from polytask.models import DenseHead
        >>> DenseHead(64, 13, [32], size=(90, 120))(torch.rand(2, 64, 12, 15)).shape
        torch.Size([2, 13, 90, 120])
    """

    def __init__(
        self,
        input_dim: int,
        output_dim: int,
        hidden_dims: Sequence[int] | None = None,
        *,
        size: int | Sequence[int] | None = None,
        scale: int = 1,
        mode: Mode = "bilinear",
    ) -> None:
        super().__init__()
        self.input_dim = check_size(input_dim, "input_dim")
        self.output_dim = check_size(output_dim, "output_dim")
        self.scale = check_size(scale, "scale")
        self.size = None if size is None else check_sides(size, "size")
        if self.size is not None and self.scale != 1:
            raise UserError(
                "scale",
                "must not be given together with size",
                f"size {size} and scale {scale}",
                "Remove one",
            )
        if mode not in ("bilinear", "nearest"):
            raise UserError("mode", "must be 'bilinear' or 'nearest'", repr(mode))
        self.mode = mode
        layers: OrderedDict[str, nn.Module] = OrderedDict()
        widths = (self.input_dim, *check_sizes(hidden_dims, "hidden_dims"))
        for number, (width, next_width) in enumerate(pairwise(widths), start=1):
            layers[f"conv{number}"] = nn.Conv2d(width, next_width, kernel_size=3, padding=1)
            layers[f"activation{number}"] = nn.ReLU()
        layers["output"] = nn.Conv2d(widths[-1], self.output_dim, kernel_size=1)
        self.layers = nn.Sequential(layers)

    def forward(self, representation: Any) -> Tensor:
        """The values of every pixel; see Shape.

        Args:
            representation: What the backbone returned.

        Raises:
            UserError: If it is no tensor of feature maps, or has another number of channels.
        """
        rule = f"must be feature maps of shape (N, {self.input_dim}, height, width) for this head"
        if not isinstance(representation, Tensor):
            raise UserError("representation", rule, f"a {type(representation).__name__}")
        if representation.dim() != 4 or representation.shape[1] != self.input_dim:
            raise UserError("representation", rule, f"shape {tuple(representation.shape)}")
        maps: Tensor = self.layers(representation)
        height, width = maps.shape[-2:]
        size = self.size or (height * self.scale, width * self.scale)
        # Maps that already have the size are not interpolated.
        return (
            maps
            if self.size is None and self.scale == 1
            else functional.interpolate(maps, size, mode=self.mode)
        )
