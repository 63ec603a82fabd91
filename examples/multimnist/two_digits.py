"""MultiMNIST: two overlaid digits, the left and the right one, and the LeNet that reads them."""

import gzip
import math
from pathlib import Path
from typing import Literal

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from polytask.data import ArrayDataset

FILES = {
    "train": ("train-images-idx3-ubyte", "train-labels-idx1-ubyte"),
    "test": ("t10k-images-idx3-ubyte", "t10k-labels-idx1-ubyte"),
}
Split = Literal["train", "val", "test"]


class MultiMNIST(ArrayDataset):
    """Images ``(1, 28, 28)``, as bytes, of two overlaid digits, with the classes ``left`` and ``right``.

    Each digit of a split is a left one once, next to a random digit of the same split, and a right one once.
    The pairs are the same for every seed of a training.

    Args:
        root: The folder that has ``MNIST/raw`` in it, with the four IDX files, each as it is or with ``.gz``.
        split: ``train``, ``val`` or ``test``; the digits of ``val`` are taken from the training files.
        val_size: Images in ``val``.
        rows: Images in ``train``; all that ``val`` leaves where None.

    Raises:
        FileNotFoundError: If a file is missing.
        ValueError: If a file is not what its name says, or there are fewer digits than asked for.
    """

    def __init__(self, root: str, split: Split, val_size: int = 5000, rows: int | None = None) -> None:
        folder = Path(root) / "MNIST" / "raw"
        images, digits = (read(folder / name) for name in FILES["test" if split == "test" else "train"])
        if len(images) != len(digits):
            raise ValueError(f"{folder}: {len(images)} images, but {len(digits)} labels")
        own = own_rows(split, len(digits), val_size, rows)
        others = own[permutation(len(own), seed=1)]
        targets = {"left": digits[own].long(), "right": digits[others].long()}
        super().__init__(overlaid(images[own], images[others]), targets, classes=dict.fromkeys(targets, 10))


def own_rows(split: Split, size: int, val_size: int, rows: int | None) -> Tensor:
    """Which digits of the files belong to a split."""
    if split == "test":
        return torch.arange(size)
    most = size - val_size
    rows = most if rows is None else rows
    if val_size < 1 or not 0 < rows <= most:
        raise ValueError(f"{size} digits are not enough for val_size={val_size} and {rows} training images")
    order = permutation(size, seed=0)
    return order[:val_size] if split == "val" else order[val_size : val_size + rows]


def overlaid(left: Tensor, right: Tensor) -> Tensor:
    """Images ``(N, 1, 28, 28)`` of two digits each, from theirs ``(N, 28, 28)``; the brighter pixel is seen.

    The canvas has 36 x 36 pixels, the left digit in rows and columns 0:28, the right one in 6:34.
    """
    canvas = left.new_zeros(len(left), 1, 36, 36)
    canvas[:, 0, :28, :28] = left
    corner = canvas[:, 0, 6:34, 6:34]
    torch.maximum(corner, right, out=corner)
    return F.interpolate(canvas, (28, 28), mode="nearest")


def permutation(size: int, seed: int) -> Tensor:
    return torch.randperm(size, generator=torch.Generator().manual_seed(seed))


def read(path: Path) -> Tensor:
    """The array in an IDX file of bytes, as it is or with ``.gz``."""
    packed = path.with_name(f"{path.name}.gz")
    data = gzip.decompress(packed.read_bytes()) if packed.is_file() else path.read_bytes()
    # 0, 0, the type, the number of dimensions, their sizes in four bytes each, the values.
    start = 4 + 4 * data[3] if len(data) > 3 else 4
    shape = tuple(np.frombuffer(data[4:start], ">u4").tolist())
    if data[:3] != bytes([0, 0, 8]) or len(data) - start != math.prod(shape):
        raise ValueError(f"{path}: is not a whole IDX file of bytes")
    return torch.from_numpy(np.frombuffer(data, np.uint8, offset=start).reshape(shape).copy())


class LeNet(nn.Module):
    """The part that both tasks share; 50 features."""

    output_dim = 50

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Sequential(nn.Conv2d(1, 10, 5), nn.MaxPool2d(2), nn.ReLU())
        self.second = nn.Sequential(nn.Conv2d(10, 20, 5), nn.Dropout2d(0.5), nn.MaxPool2d(2), nn.ReLU())
        self.last = nn.Sequential(nn.Flatten(), nn.Linear(320, 50), nn.ReLU())

    def forward(self, x: Tensor) -> Tensor:
        features: Tensor = self.last(self.second(self.first(x)))
        return features
