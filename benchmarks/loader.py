"""What loaders cost: whole batches from arrays, and tasks drawn from loaders of their own.

One shuffled epoch of 60,000 rows of 784 numbers in batches of 64 against `DataLoader(TensorDataset)`, from
float32 and from bytes that are normalised; and a `TaskLoader` over 50 tasks against a loop that reads from
such loaders by hand. Interleaved in one process; medians of the rounds' ratios are written to ``results/``.

    python benchmarks/loader.py [--rounds 9]
"""

import argparse
import statistics
import time
from collections.abc import Callable, Iterable
from typing import Any

import torch
from _table import write_table
from torch import Tensor
from torch.utils.data import DataLoader, TensorDataset

from polytask.data import ArrayLoader, RoundRobin, TaskLoader, create_multitask_dataloader

ROWS, FEATURES, BATCH = 60_000, 784, 64
MEAN, STD = 0.1307, 0.3081
TASKS, STEPS = 50, 2000


def seconds(epoch: Callable[[], Any]) -> float:
    start = time.perf_counter()
    epoch()
    return time.perf_counter() - start


def through(loader: Iterable[Any]) -> Callable[[], None]:
    def epoch() -> None:
        for _ in loader:
            pass

    return epoch


def labels() -> dict[str, Tensor]:
    digit = torch.randint(0, 10, (ROWS,))
    return {"digit": digit, "parity": digit % 2}


def float_loaders() -> tuple[Callable[[], None], Callable[[], None]]:
    inputs, targets = torch.rand(ROWS, FEATURES), labels()
    plain = DataLoader(TensorDataset(inputs, *targets.values()), BATCH, shuffle=True)
    return through(plain), through(create_multitask_dataloader(inputs, targets, BATCH, seed=0))


def byte_loaders() -> tuple[Callable[[], None], Callable[[], None]]:
    """Both normalise whole batches; the data set of single rows could not do it for less."""
    inputs, targets = torch.randint(0, 256, (ROWS, FEATURES), dtype=torch.uint8), labels()
    plain = DataLoader(TensorDataset(inputs, *targets.values()), BATCH, shuffle=True)

    def epoch() -> None:
        for images, *_ in plain:
            images.float().div_(255).sub_(MEAN).div_(STD)

    ours = create_multitask_dataloader(inputs, targets, BATCH, seed=0, normalize=(MEAN, STD))
    return epoch, through(ours)


def task_loaders() -> tuple[Callable[[], None], Callable[[], None]]:
    def loaders() -> dict[str, ArrayLoader]:
        return {
            f"task{i}": create_multitask_dataloader(
                torch.rand(2048, FEATURES), {f"task{i}": torch.randint(0, 2, (2048,))}, BATCH, seed=i
            )
            for i in range(TASKS)
        }

    by_hand = loaders()

    def epoch() -> None:
        iterators = {name: iter(loader) for name, loader in by_hand.items()}
        names = list(iterators)
        for step in range(STEPS):
            name = names[step % TASKS]
            try:
                next(iterators[name])
            except StopIteration:
                iterators[name] = iter(by_hand[name])
                next(iterators[name])

    return epoch, through(TaskLoader(loaders(), RoundRobin(), epoch=STEPS, seed=0))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=9)
    rounds = parser.parse_args().rounds
    torch.manual_seed(0)
    cases = {
        "array loader, float32": (float_loaders(), ROWS, True, "at least 6 times as fast"),
        "array loader, bytes normalised": (byte_loaders(), ROWS, True, "at least 6 times as fast"),
        f"task loader, {TASKS} tasks": (task_loaders(), STEPS * BATCH, False, "at most 5 % slower"),
    }
    times: dict[str, list[tuple[float, float]]] = {name: [] for name in cases}
    for _ in range(rounds):
        for name, ((other, ours), *_) in cases.items():
            times[name].append((seconds(other), seconds(ours)))
    rows = []
    for name, (_, samples, faster, aim) in cases.items():
        ratios = [other / ours if faster else ours / other for other, ours in times[name]]
        other, ours = (statistics.median(column) for column in zip(*times[name], strict=True))
        rows.append(
            [
                name,
                f"{samples / other:,.0f}",
                f"{samples / ours:,.0f}",
                f"{statistics.median(ratios):.3g}{' x as fast' if faster else ' x the time'}",
                f"{min(ratios):.3g}-{max(ratios):.3g}",
                aim,
            ]
        )
    header = ["case", "other, samples/s", "polytask, samples/s", "ratio", "min-max", "aim"]
    title = f"Loaders: medians of {rounds} interleaved rounds, batches of {BATCH} rows of {FEATURES}"
    write_table("loader", title, header, rows)


if __name__ == "__main__":
    main()
