"""One epoch of MNIST with two tasks, from arrays, against the way tutorials do it.

    python benchmarks/notebook.py DIR [--rounds 9]        # DIR/MNIST/raw has the IDX files

The tutorial: a data set that makes a PIL image of each row and takes it through ToTensor and Normalize as
torchvision has them, a DataLoader, two criteria, and ``.item()`` of the loss in every batch. Both sides start
from the bytes in memory, train 784-100-{10, 2} with Adam, and take turns in one process. Test accuracies are
medians over the rounds, each of which has a seed of its own.
"""

import argparse
import statistics
import time
import warnings
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from _table import write_table
from PIL import Image
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset

from polytask.data import create_multitask_dataloader
from polytask.losses import MultiTaskLoss
from polytask.models import MLP, HardParameterSharing, create_hard_sharing_model
from polytask.trainer import MultiTaskTrainer

MEAN, DEVIATION = 0.1307, 0.3081
FILES = {"train": "train", "test": "t10k"}
TASKS = {"digit": {"output_dim": 10}, "parity": {"output_dim": 2}}
AIM = 6.0
TUTORIAL = (64, 1e-3)
# Without the loader's cost larger steps are faster; the rate grows with them.
OURS = {"batch 64, as the tutorial": (64, 1e-3), "batch 256": (256, 4e-3)}

Seconds, Trained = float, HardParameterSharing
Side = Callable[[Tensor, Tensor, int], tuple[Seconds, Trained]]


def idx(path: Path, *row: int) -> Tensor:
    """The rows of an IDX file of bytes."""
    start = 4 * (2 + len(row))
    return torch.from_numpy(np.frombuffer(path.read_bytes(), np.uint8, offset=start).copy()).view(-1, *row)


def network(seed: int) -> HardParameterSharing:
    torch.manual_seed(seed)
    return create_hard_sharing_model(MLP(784, [], 100, activate_output=True), TASKS)


class Images(Dataset[tuple[Tensor, int, int]]):
    """What torchvision's MNIST does for each row with ToTensor and Normalize."""

    def __init__(self, images: Tensor, digits: Tensor) -> None:
        self.images = images
        self.digits = digits

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, i: int) -> tuple[Tensor, int, int]:
        picture = Image.fromarray(self.images[i].numpy())
        digit = int(self.digits[i])
        return normalize(to_tensor(picture)), digit, digit % 2


def to_tensor(picture: Image.Image) -> Tensor:
    pixels = torch.from_numpy(np.array(picture, np.uint8, copy=True))
    pixels = pixels.view(picture.size[1], picture.size[0], 1).permute(2, 0, 1).contiguous()
    return pixels.to(torch.float32).div(255)


def normalize(image: Tensor) -> Tensor:
    image = image.clone()
    mean = torch.as_tensor((MEAN,), dtype=image.dtype).view(-1, 1, 1)
    deviation = torch.as_tensor((DEVIATION,), dtype=image.dtype).view(-1, 1, 1)
    return image.sub_(mean).div_(deviation)


def tutorial(images: Tensor, digits: Tensor, seed: int) -> tuple[Seconds, Trained]:
    batch, rate = TUTORIAL
    model = network(seed)
    optimizer = torch.optim.Adam(model.parameters(), lr=rate)
    of_digit, of_parity = nn.CrossEntropyLoss(), nn.CrossEntropyLoss()
    start = time.perf_counter()
    running = 0.0
    for inputs, digit, parity in DataLoader(Images(images, digits), batch_size=batch, shuffle=True):
        optimizer.zero_grad()
        outputs = model(inputs.view(len(inputs), -1))
        loss = of_digit(outputs["digit"], digit) + 0.5 * of_parity(outputs["parity"], parity)
        loss.backward()
        optimizer.step()
        running += loss.item()
    return time.perf_counter() - start, model


def ours(batch: int, rate: float) -> Side:
    def train(images: Tensor, digits: Tensor, seed: int) -> tuple[Seconds, Trained]:
        model = network(seed)
        loss_fn = MultiTaskLoss(dict.fromkeys(TASKS, nn.CrossEntropyLoss()), {"parity": 0.5})
        optimizer = torch.optim.Adam(model.parameters(), lr=rate, fused=True)
        start = time.perf_counter()
        loader = create_multitask_dataloader(
            images.view(len(images), -1),
            {"digit": digits, "parity": digits % 2},
            batch,
            normalize=(MEAN, DEVIATION),
        )
        MultiTaskTrainer(model, loss_fn, optimizer).train_epoch(loader, verbose=False)
        return time.perf_counter() - start, model

    return train


def accuracies(model: HardParameterSharing, images: Tensor, digits: Tensor) -> tuple[float, float]:
    with torch.no_grad():
        outputs = model((images.view(len(images), -1) / 255 - MEAN) / DEVIATION)
    right = [outputs["digit"].argmax(1) == digits, outputs["parity"].argmax(1) == digits % 2]
    return right[0].float().mean().item(), right[1].float().mean().item()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("root", help="the folder that has MNIST/raw in it")
    parser.add_argument("--rounds", type=int, default=9)
    options = parser.parse_args()
    warnings.simplefilter("ignore")
    raw = Path(options.root) / "MNIST" / "raw"
    data = {part: idx(raw / f"{name}-images-idx3-ubyte", 28, 28) for part, name in FILES.items()}
    labels = {part: idx(raw / f"{name}-labels-idx1-ubyte").long() for part, name in FILES.items()}
    sides: dict[str, Side] = {"tutorial": tutorial, **{name: ours(*how) for name, how in OURS.items()}}
    seconds: dict[str, list[float]] = {name: [] for name in sides}
    tested: dict[str, list[tuple[float, float]]] = {name: [] for name in sides}
    for seed in range(-1, options.rounds):
        for name, train in sides.items():
            spent, model = train(data["train"], labels["train"], max(seed, 0))
            # The first round warms up.
            if seed >= 0:
                seconds[name].append(spent)
                tested[name].append(accuracies(model, data["test"], labels["test"]))
    rows = []
    for name in sides:
        ratios = [slow / own for slow, own in zip(seconds["tutorial"], seconds[name], strict=True)]
        right = [f"{100 * statistics.median(column):.2f}" for column in zip(*tested[name], strict=True)]
        spread = f"{min(ratios):.1f}-{max(ratios):.1f}"
        aim = "" if name == "tutorial" else f"{AIM:.1f}"
        rows.append(
            [
                name,
                f"{statistics.median(seconds[name]):.2f} s",
                f"{statistics.median(ratios):.1f}",
                spread,
                *right,
                aim,
            ]
        )
    write_table(
        "notebook",
        f"One epoch of MNIST 784-100-{{10, 2}}, end to end, median of {options.rounds} interleaved rounds",
        ["way", "time", "times faster", "min-max", "digit, %", "parity, %", "aim"],
        rows,
    )


if __name__ == "__main__":
    main()
