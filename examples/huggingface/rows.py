"""scikit-learn's handwritten digits as a data set of Hugging Face, and as a stream of torch's."""

from collections.abc import Iterator
from typing import Literal

import torch
from datasets import Dataset
from sklearn.datasets import load_digits
from torch import Tensor
from torch.utils.data import IterableDataset

PARTS = {"train": (0, 1198), "val": (1198, 1498), "test": (1498, 1797)}


def digits(part: Literal["train", "val", "test"]) -> Dataset:
    """Rows with an image, which digit it is, and whether it is odd.

    Args:
        part: ``train``, ``val`` or ``test``, cut from one seeded shuffle.
    """
    whole = load_digits()
    order = torch.randperm(len(whole.target), generator=torch.Generator().manual_seed(0))
    chosen = order[slice(*PARTS[part])].numpy()
    columns = {
        "image": (whole.data[chosen] / 16).astype("float32"),
        "digit": whole.target[chosen],
        "parity": whole.target[chosen] % 2,
    }
    return Dataset.from_dict(columns).with_format("torch")


class Stream(IterableDataset[dict[str, Tensor]]):
    """The same rows one after another, with no length and in an order that is drawn anew each time.

    Args:
        part: ``train``, ``val`` or ``test``.
        seed: Of the orders.
    """

    def __init__(self, part: Literal["train", "val", "test"], seed: int = 0) -> None:
        self.rows = digits(part)
        self.draw = torch.Generator().manual_seed(seed)

    def __iter__(self) -> Iterator[dict[str, Tensor]]:
        for index in torch.randperm(len(self.rows), generator=self.draw).tolist():
            yield self.rows[index]
