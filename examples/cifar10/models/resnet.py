"""A ResNet-18 without its end, and a head for each task."""

import torch.nn.functional as F
from torch import Tensor, nn
from torchvision.models import resnet18


class ResNet18(nn.Sequential):
    """torchvision's ResNet-18 up to its last feature map.

    The stem neither strides nor pools, as is usual for images of 32 pixels, which would else shrink to one.

    Shape:
        - ``(N, 3, H, W)`` to ``(N, 512, H / 8, W / 8)``.
    """

    def __init__(self) -> None:
        net = resnet18()
        stem = nn.Conv2d(3, 64, kernel_size=3, padding=1, bias=False)
        super().__init__(stem, net.bn1, net.relu, net.layer1, net.layer2, net.layer3, net.layer4)


class ClassificationHead(nn.Module):
    """The mean over all positions, and a linear layer.

    Args:
        channels: Of the feature map.
        classes: How many there are.

    Shape:
        - ``(N, channels, h, w)`` to ``(N, classes)``.
    """

    def __init__(self, channels: int, classes: int) -> None:
        super().__init__()
        self.linear = nn.Linear(channels, classes)

    def forward(self, features: Tensor) -> Tensor:
        return self.linear(features.mean(dim=(2, 3)))


class SegmentationHead(nn.Module):
    """Scores at each position, enlarged to the size of the image.

    Args:
        channels: Of the feature map.
        classes: How many there are, the background included.
        enlarge: The image's size over the feature map's.

    Shape:
        - ``(N, channels, h, w)`` to ``(N, classes, enlarge * h, enlarge * w)``.
    """

    def __init__(self, channels: int, classes: int, enlarge: int = 8) -> None:
        super().__init__()
        self.score = nn.Sequential(
            nn.Conv2d(channels, 64, 3, padding=1), nn.ReLU(), nn.Conv2d(64, classes, 1)
        )
        self.enlarge = enlarge

    def forward(self, features: Tensor) -> Tensor:
        return F.interpolate(self.score(features), scale_factor=self.enlarge, mode="bilinear")
