"""scikit-learn's 1797 handwritten digits of 8 × 8 pixels, with two labels each."""

from typing import Literal

import torch
from torch import Tensor
from torch.utils.data import Dataset

PARTS = {"train": (0, 1198), "val": (1198, 1498), "test": (1498, 1797)}


class Digits(Dataset[dict[str, Tensor]]):
    """Which digit it is, and whether it is odd.

    Args:
        part: ``train``, ``val`` or ``test``, cut from one seeded shuffle.
    """

    def __init__(self, part: Literal["train", "val", "test"]) -> None:
        from sklearn.datasets import load_digits  # here, since predictions with `Argmax` do not need it

        digits = load_digits()
        order = torch.randperm(len(digits.target), generator=torch.Generator().manual_seed(0))
        chosen = order[slice(*PARTS[part])]
        self.images = torch.from_numpy(digits.images).float()[chosen].unsqueeze(1) / 16
        self.digits = torch.from_numpy(digits.target)[chosen]

    def __len__(self) -> int:
        return len(self.digits)

    def __getitem__(self, i: int) -> dict[str, Tensor]:
        return {"image": self.images[i], "digit": self.digits[i], "parity": self.digits[i] % 2}


class Argmax:
    """The class with the highest score, for the predictions file."""

    def __call__(self, scores: Tensor) -> Tensor:
        return scores.argmax(dim=1)
