"""Handwritten digits as features of a frozen EfficientNet-Lite0, computed once and kept in a file."""

import hashlib
import os
from pathlib import Path
from typing import Literal

import torch
import torch.nn.functional as F
from lite import EfficientNetLite0
from sklearn.datasets import load_digits
from torch import Tensor
from torch.utils.data import Dataset

PARTS = {"train": (0, 1198), "val": (1198, 1498), "test": (1498, 1797)}
BATCH = 64


class Features(Dataset[dict[str, Tensor]]):
    """What the network makes of scikit-learn's digits; which digit it is, and whether it is odd.

    The network is frozen, so that each image has to go through it once only: the features are computed when
    they are first asked for, and read from the file from then on.

    Args:
        part: ``train``, ``val`` or ``test``, cut from one seeded shuffle.
        cache: The folder of the file.
        size: Pixels that the images are enlarged to.
        pretrained: Whether the network has its weights, or random ones.
        rows: Images at the most, from the first.
    """

    def __init__(
        self,
        part: Literal["train", "val", "test"],
        cache: str = "cache",
        size: int = 96,
        pretrained: bool = True,
        rows: int | None = None,
    ) -> None:
        digits = load_digits()
        order = torch.randperm(len(digits.target), generator=torch.Generator().manual_seed(0))
        chosen = order[slice(*PARTS[part])][:rows]
        images = torch.from_numpy(digits.images).float()[chosen].unsqueeze(1) / 16
        self.features = cached(images, Path(cache), size, pretrained)
        self.digits = torch.from_numpy(digits.target)[chosen]

    def __len__(self) -> int:
        return len(self.digits)

    def __getitem__(self, i: int) -> dict[str, Tensor]:
        return {"features": self.features[i], "digit": self.digits[i], "parity": self.digits[i] % 2}


def cached(images: Tensor, folder: Path, size: int, pretrained: bool) -> Tensor:
    """The images' features, from a file that is named after all they depend on."""
    made_from = f"lite0 {size} {pretrained} ".encode() + images.numpy().tobytes()
    path = folder / f"{hashlib.sha256(made_from).hexdigest()[:16]}.pt"
    if path.is_file():
        found: Tensor = torch.load(path, weights_only=True)
        return found
    features = computed(images, size, pretrained)
    folder.mkdir(parents=True, exist_ok=True)
    part = path.with_suffix(f".{os.getpid()}")
    torch.save(features, part)
    part.replace(path)
    return features


@torch.inference_mode()
def computed(images: Tensor, size: int, pretrained: bool) -> Tensor:
    """The images' features."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        network = EfficientNetLite0(pretrained).eval()
    enlarged = F.interpolate(images, (size, size), mode="bilinear").expand(-1, 3, -1, -1)
    return torch.cat([network(batch) for batch in enlarged.split(BATCH)])
