"""MNIST as one data set with two tasks: which digit, and whether it is odd."""

import gzip
import importlib.util
import math
from pathlib import Path
from typing import Literal

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils.data import Dataset

IMAGES = {"train": "train-images-idx3-ubyte", "test": "t10k-images-idx3-ubyte"}
LABELS = {"train": "train-labels-idx1-ubyte", "test": "t10k-labels-idx1-ubyte"}
MEAN, DEVIATION = 0.1307, 0.3081

Split = Literal["train", "val", "test"]
Examples = tuple[Tensor, dict[str, Tensor]]


class MNIST(Dataset[Examples]):
    """Straightened images ``(1, 28, 28)`` with the targets ``digit`` and ``parity`` (1 is odd).

    The IDX files are read from ``root/MNIST/raw``, gzipped or not. If they are missing, torchvision
    downloads them if it is installed.

    Args:
        root: The folder that has ``MNIST/raw`` in it.
        split: ``train``, ``val`` or ``test``; ``val`` is cut from the training files.
        val_size: Images in ``val``.
        seed: Decides which images these are.
        augment: Applied to each batch of pixels in [0, 1].

    Raises:
        FileNotFoundError: If files are missing; says which go where.
        ValueError: If a file is not what its name says, or ``val_size`` leaves nothing to train on.
    """

    def __init__(
        self,
        root: str,
        split: Split,
        val_size: int = 5000,
        seed: int = 0,
        augment: torch.nn.Module | None = None,
    ) -> None:
        folder = Path(root) / "MNIST" / "raw"
        source = "test" if split == "test" else "train"
        if missing := _missing(folder):
            _download(root, folder, missing)
        images, digits = read_idx(folder / IMAGES[source]), read_idx(folder / LABELS[source])
        if len(images) != len(digits):
            raise ValueError(f"{folder}: {len(images)} {source} images, but {len(digits)} labels")
        rows = rows_of(split, len(images), val_size, seed)
        straight = torch.cat([straighten(part / 255) for part in images[rows].split(5000)])
        self.images = straight.unsqueeze(1)
        self.digits = digits[rows].long()
        self.augment = augment

    def __len__(self) -> int:
        return len(self.digits)

    def __getitem__(self, index: int) -> Examples:
        images, targets = self.__getitems__([index])
        return images[0], {task: target[0] for task, target in targets.items()}

    def __getitems__(self, indices: list[int]) -> Examples:
        """A whole batch at once, which a DataLoader asks for; `whole` hands it on as it is."""
        images, digits = self.images[indices], self.digits[indices]
        if self.augment is not None:
            images = self.augment(images)
        return (images - MEAN) / DEVIATION, {"digit": digits, "parity": digits % 2}


def whole(batch: Examples) -> Examples:
    """The ``collate_fn`` for a data set that makes whole batches."""
    return batch


class RandomAffine(torch.nn.Module):
    """Rotates, scales and shifts each image of a batch by its own random amounts.

    Args:
        degrees: Largest rotation, in degrees.
        scale: Largest relative change of size.
        shift: Largest shift, in pixels.
    """

    def __init__(self, degrees: float, scale: float, shift: float) -> None:
        super().__init__()
        self.degrees = degrees
        self.scale = scale
        self.shift = shift

    def forward(self, images: Tensor) -> Tensor:
        rotation, scale, across, down = (2 * torch.rand(4, len(images)) - 1).unbind()
        angle, factor = rotation * math.radians(self.degrees), 1 + scale * self.scale
        pixel = 2 / images.shape[-1]
        cos, sin = factor * angle.cos(), factor * angle.sin()
        rows = [cos, -sin, across * self.shift * pixel, sin, cos, down * self.shift * pixel]
        return resampled(images, torch.stack(rows, dim=1))


def rows_of(split: Split, size: int, val_size: int, seed: int) -> Tensor:
    """Which of the files' rows belong to a split."""
    if split == "test":
        return torch.arange(size)
    if not 0 < val_size < size:
        raise ValueError(f"val_size: must be above 0 and below the {size} training images, not {val_size}")
    order = torch.randperm(size, generator=torch.Generator().manual_seed(seed))
    return order[:val_size] if split == "val" else order[val_size:]


def straighten(images: Tensor) -> Tensor:
    """Centre each image's brightness and undo its slant, which is its covariance(x, y) / variance(y).

    Writing slants by hand and not by digit, so that a small network is better off without it.

    Shape:
        - ``(N, H, W)`` to the same.
    """
    height, width = images.shape[1:]
    down = torch.linspace(-1 + 1 / height, 1 - 1 / height, height)
    across = torch.linspace(-1 + 1 / width, 1 - 1 / width, width)
    mass = images / images.sum(dim=(1, 2), keepdim=True).clamp_min(1e-6)
    y, x = mass.sum(dim=2) @ down, mass.sum(dim=1) @ across
    off_y, off_x = down - y[:, None], across - x[:, None]
    variance = torch.einsum("nhw,nh,nh->n", mass, off_y, off_y)
    slant = torch.einsum("nhw,nh,nw->n", mass, off_y, off_x) / variance.clamp_min(1e-6)
    one, zero = torch.ones_like(x), torch.zeros_like(x)
    return resampled(images.unsqueeze(1), torch.stack([one, slant, x, zero, one, y], dim=1)).squeeze(1)


def resampled(images: Tensor, coefficients: Tensor) -> Tensor:
    """Each image ``(1, H, W)``, read at the positions that its row of 2 x 3 affine coefficients gives."""
    grid = F.affine_grid(coefficients.view(-1, 2, 3), list(images.shape), align_corners=False)
    return F.grid_sample(images, grid, align_corners=False)


def _missing(folder: Path) -> list[str]:
    names = [*IMAGES.values(), *LABELS.values()]
    return [name for name in names if not any((folder / f"{name}{end}").is_file() for end in ("", ".gz"))]


def _download(root: str, folder: Path, missing: list[str]) -> None:
    help = f"Put {', '.join(missing)} (or each with .gz) into {folder.absolute()}"
    if importlib.util.find_spec("torchvision") is None:
        raise FileNotFoundError(f"MNIST is not there. {help}, or install torchvision, which downloads them")
    try:
        from torchvision import datasets

        datasets.MNIST(root, download=True)
    except (RuntimeError, OSError) as error:
        raise FileNotFoundError(f"torchvision could not download MNIST ({error}). {help}") from error


def read_idx(path: Path) -> Tensor:
    """The array in an IDX file of bytes, such as ``train-images-idx3-ubyte`` or the same with ``.gz``."""
    data = path.read_bytes() if path.is_file() else gzip.decompress(Path(f"{path}.gz").read_bytes())
    dimensions = 3 if "idx3" in path.name else 1
    start = 4 + 4 * dimensions
    shape = tuple(np.frombuffer(data[4:start], ">u4").tolist())
    if data[:4] != bytes([0, 0, 8, dimensions]) or len(data) - start != math.prod(shape):
        raise ValueError(f"{path}: is not a whole IDX file of bytes with {dimensions} dimensions")
    return torch.from_numpy(np.frombuffer(data, np.uint8, offset=start).reshape(shape).copy())
