"""A data set that is generated; replace it by your own."""

import math

import torch
from torch import Tensor
from torch.utils.data import Dataset

POINTS = 32


class Curves(Dataset[tuple[Tensor, dict[str, Tensor]]]):
    """Noisy sine, square and saw-tooth waves: which shape it is, and how high.

    A third of the heights is missing, as labels often are: a missing number is NaN, a missing class -100.

    Args:
        rows: How many curves.
        seed: The seed of the random numbers.
    """

    def __init__(self, rows: int, seed: int) -> None:
        random = torch.Generator().manual_seed(seed)
        phase = torch.rand(rows, 1, generator=random) + torch.linspace(0, 2, POINTS)
        waves = torch.stack([(2 * math.pi * phase).sin(), (phase % 1 - 0.5).sign(), 2 * (phase % 1) - 1])
        self.shapes = torch.randint(0, 3, (rows,), generator=random)
        self.heights = 0.5 + torch.rand(rows, generator=random)
        noise = 0.1 * torch.randn(rows, POINTS, generator=random)
        self.curves = waves[self.shapes, torch.arange(rows)] * self.heights.unsqueeze(1) + noise
        self.heights[torch.rand(rows, generator=random) < 1 / 3] = math.nan

    def __len__(self) -> int:
        return len(self.curves)

    def __getitem__(self, i: int) -> tuple[Tensor, dict[str, Tensor]]:
        return self.curves[i], {"shape": self.shapes[i], "height": self.heights[i]}
