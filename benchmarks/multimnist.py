"""MultiMNIST: two overlaid digits, the left and the right one, with one LeNet and several sharing schemes.

    python benchmarks/multimnist.py DIR [--seeds 3] [--epochs 30]        # DIR/MNIST/raw has the IDX files

Sener and Koltun, "Multi-Task Learning as Multi-Objective Optimization", NeurIPS 2018: canvas of 36 x 36
pixels, left digit at rows and columns 0:28, right digit at 6:34, the brighter pixel where they overlap, made
28 x 28 by the nearest pixel. SGD with momentum 0.9, learning rate 0.05, times 0.85 every 10 epochs, batches
of 256. Both losses weigh the same. Test accuracy is that of the last epoch: nothing is selected.
"""

import argparse
import importlib.util
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from types import ModuleType

import torch
import torch.nn.functional as F
from _interval import interval
from _table import write_table
from torch import Tensor, nn

from polytask.models import CGC, MTAN, CrossStitch, FiLM, MultiHead, MultiTaskModel, Separate

TASKS = ("left", "right")
BATCH = 256
MEAN, DEVIATION = 0.1307, 0.3081
Examples = tuple[Tensor, dict[str, Tensor]]


# ---- data ---------------------------------------------------------------------------------------


def example() -> ModuleType:
    """The module of ``examples/multimnist``, which has the network, reads the files and lays digits over."""
    path = Path(__file__).parents[1] / "examples" / "multimnist" / "two_digits.py"
    spec = importlib.util.spec_from_file_location("multimnist_example", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


two_digits = example()
LeNet = two_digits.LeNet


def multimnist(images: Tensor, digits: Tensor, seed: int) -> Examples:
    """As many examples as images: each is a left and a right digit once, next to a random other."""
    others = torch.randperm(len(images), generator=torch.Generator().manual_seed(seed))
    pixels = two_digits.overlaid(images.float() / 255, images[others].float() / 255)
    return (pixels - MEAN) / DEVIATION, {"left": digits.long(), "right": digits[others].long()}


def read(root: str, device: torch.device) -> dict[str, Examples]:
    """Training and test examples; the pairs are the same for all seeds of the training."""
    found = {}
    for number, split in enumerate(("train", "test")):
        files = [Path(root) / "MNIST" / "raw" / name for name in two_digits.FILES[split]]
        x, targets = multimnist(*(two_digits.read(file) for file in files), seed=number)
        found[split] = x.to(device), {task: target.to(device) for task, target in targets.items()}
    return found


# ---- networks -----------------------------------------------------------------------------------


def trunk() -> nn.Module:
    """The convolutions alone, for schemes whose heads take feature maps."""
    network = LeNet()
    return nn.Sequential(network.first, network.second)


def head() -> nn.Module:
    return nn.Sequential(nn.Linear(50, 50), nn.ReLU(), nn.Dropout(0.5), nn.Linear(50, 10))


def heads() -> dict[str, nn.Module]:
    return {task: head() for task in TASKS}


def map_heads() -> dict[str, nn.Module]:
    """Heads that begin with the LeNet's last shared layer."""
    return {task: nn.Sequential(LeNet().last, head()) for task in TASKS}


SCHEMES: dict[str, Callable[[], MultiTaskModel]] = {
    "single-task": lambda: Separate({task: nn.Sequential(LeNet(), head()) for task in TASKS}),
    "hard sharing": lambda: MultiHead(LeNet(), heads()),
    "CrossStitch": lambda: CrossStitch(LeNet(), heads(), {"first": 10, "second": 20}),
    "MTAN": lambda: MTAN(trunk(), map_heads(), {"0": 10, "1": 20}),
    "CGC": lambda: CGC(LeNet, heads(), gate=28 * 28),
    "FiLM": lambda: FiLM(LeNet(), heads(), {"first": 10, "second": 20}),
}


# ---- training -----------------------------------------------------------------------------------


def train(model: MultiTaskModel, examples: Examples, epochs: int) -> None:
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9)
    scheduler = torch.optim.lr_scheduler.StepLR(optimizer, 10, 0.85)
    x, targets = examples
    for _ in range(epochs):
        for rows in torch.randperm(len(x), device=x.device).split(BATCH):
            optimizer.zero_grad()
            outputs = model(x[rows])
            torch.stack(
                [F.cross_entropy(outputs[task], targets[task][rows]) for task in TASKS]
            ).sum().backward()
            optimizer.step()
        scheduler.step()


@torch.no_grad()
def accuracies(model: MultiTaskModel, examples: Examples) -> dict[str, float]:
    """Accuracy of each task, in percent."""
    model.eval()
    x, targets = examples
    right = dict.fromkeys(TASKS, 0)
    for rows in torch.arange(len(x), device=x.device).split(1000):
        for task, output in model(x[rows]).items():
            right[task] += int((output.argmax(dim=1) == targets[task][rows]).sum())
    return {task: 100 * count / len(x) for task, count in right.items()}


def run(
    build: Callable[[], MultiTaskModel], data: dict[str, Examples], epochs: int, seed: int
) -> dict[str, float]:
    torch.manual_seed(seed)
    x = data["train"][0]
    model = build().to(x.device)
    start = time.perf_counter()
    train(model, data["train"], epochs)
    seconds = time.perf_counter() - start
    return accuracies(model, data["test"]) | {"seconds": seconds}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("root", help="the folder that has MNIST/raw in it")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--epochs", type=int, default=30)
    parser.add_argument("--limit", type=int, help="training examples at the most, for a trial")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    arguments = parser.parse_args()
    data = read(arguments.root, torch.device(arguments.device))
    x, targets = data["train"]
    kept = slice(arguments.limit)
    data["train"] = x[kept], {task: target[kept] for task, target in targets.items()}
    rows = []
    for name, build in SCHEMES.items():
        runs = [run(build, data, arguments.epochs, seed) for seed in range(arguments.seeds)]
        column = partial(map, lambda key, runs=runs: interval([each[key] for each in runs], 2))
        size = sum(parameter.numel() for parameter in build().parameters())
        rows.append([name, f"{size:,}", *column(TASKS), f"{sum(each['seconds'] for each in runs):.0f} s"])
    write_table(
        "multimnist",
        f"MultiMNIST, test accuracy in percent after {arguments.epochs} epochs of "
        f"{len(data['train'][0]):,} examples, mean and 95 % interval over {arguments.seeds} seeds",
        ["scheme", "parameters", *TASKS, "training, all seeds"],
        rows,
    )


if __name__ == "__main__":
    main()
