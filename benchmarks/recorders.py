"""What the recorders add to the time of a fit, on the small CNN of the overhead benchmark.

In one fit the recorders take part in every second step and record some of those; each has its
neighbour without them. A round is 50 steps of each kind, and the writing at the fit's end, shared out to the
rounds. The median of the rounds' ratios is printed and written to ``results/``.

    python benchmarks/recorders.py [--rounds 15] [case ...]
"""

import argparse
import functools
import statistics
import tempfile
import time
import warnings
from collections.abc import Callable
from typing import Any

import pytorch_lightning as pl
import torch
from _table import write_table
from step_overhead import CLASSES, TASKS, Batches, cnn
from torch import nn
from torch.utils.data import ConcatDataset, DataLoader
from torchmetrics.classification import MulticlassAccuracy

from polytask.diagnostics import GradientRecorder, LossRecorder, WeightRecorder
from polytask.loggers import CSVLogger
from polytask.losses import MultiTaskLoss
from polytask.system import System
from polytask.weighting import Equal, UPGrad, Weighting

AIM = "1.03"
STEPS = 50
# By name, with twice the number that it says: of two steps a recorder sees one.
CASES: dict[str, tuple[Callable[[], Weighting], Callable[[], list[pl.Callback]], str]] = {
    "Equal, GradientRecorder(every=50)": (Equal, lambda: [GradientRecorder(every=100)], AIM),
    "Equal, GradientRecorder(every=50, level='parameters')": (
        Equal,
        lambda: [GradientRecorder(every=100, level="parameters")],
        "-",
    ),
    "UPGrad, GradientRecorder(every=50)": (UPGrad, lambda: [GradientRecorder(every=100)], AIM),
    "Equal, LossRecorder(every=10), WeightRecorder(every=10)": (
        Equal,
        lambda: [LossRecorder(every=20), WeightRecorder(every=20)],
        "-",
    ),
}


class Alternate(pl.Callback):
    """Lets recorders take part in every second step, the first with them, and times each step."""

    def __init__(self, recorders: list[pl.Callback]) -> None:
        self.recorders = recorders
        self.seconds: list[float] = []
        self.writing = 0.0

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        for recorder in self.recorders:
            recorder.on_train_start(trainer, pl_module)
        trainer.callbacks = [self, *self.recorders]

    def on_train_batch_start(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, batch: Any, batch_idx: int
    ) -> None:
        if batch_idx:
            self.end()
        if batch_idx % 2:
            trainer.callbacks = [self]
            for recorder in self.recorders:
                # Not timed: it tells what looks on that this step is none of its own.
                recorder.on_train_batch_start(trainer, pl_module, batch, batch_idx)
        self.start = time.perf_counter()

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        if batch_idx % 2:
            # From the next hook on.
            trainer.callbacks = [self, *self.recorders]

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self.end()
        trainer.callbacks = [self]
        start = time.perf_counter()
        for recorder in self.recorders:
            recorder.on_train_epoch_end(trainer, pl_module)
            recorder.on_train_end(trainer, pl_module)
        self.writing = time.perf_counter() - start

    def end(self) -> None:
        self.seconds.append(time.perf_counter() - self.start)

    def ratios(self) -> list[float]:
        """Of each round after the first, which warms up."""
        starts = range(2 * STEPS, len(self.seconds), 2 * STEPS)
        rounds = [self.seconds[start : start + 2 * STEPS] for start in starts]
        share = self.writing / (len(rounds) + 1)
        return [(sum(steps[::2]) + share) / sum(steps[1::2]) for steps in rounds]


def ratios(case: str, rounds: int) -> list[float]:
    weighting, recorders, _ = CASES[case]
    torch.manual_seed(0)
    data = ConcatDataset([Batches((3, 32, 32), 128, 2 * STEPS)] * (rounds + 1))
    system = System(
        cnn(),
        MultiTaskLoss({task: nn.CrossEntropyLoss() for task in TASKS}, weighting=weighting()),
        functools.partial(torch.optim.AdamW, lr=1e-3),
        metrics={task: MulticlassAccuracy(CLASSES) for task in TASKS},
        dataloaders={"train": DataLoader(data, batch_size=None)},
    )
    alternate = Alternate(recorders())
    with tempfile.TemporaryDirectory() as folder:
        trainer = pl.Trainer(
            max_epochs=1,
            logger=[CSVLogger(folder)],
            callbacks=[alternate],
            default_root_dir=folder,
            enable_checkpointing=False,
            enable_progress_bar=False,
            enable_model_summary=False,
            accelerator="cpu",
        )
        trainer.fit(system)
    return alternate.ratios()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument(
        "cases", nargs="*", metavar="case", help="part of a case's name; all where none is given"
    )
    options = parser.parse_args()
    warnings.simplefilter("ignore")
    chosen = [case for case in CASES if not options.cases or any(part in case for part in options.cases)]
    rows = []
    for case in chosen:
        found = ratios(case, options.rounds)
        rows.append(
            [case, f"{statistics.median(found):.3f}", f"{min(found):.2f}-{max(found):.2f}", CASES[case][2]]
        )
    write_table(
        "recorders",
        f"Time of {STEPS} steps with recorders relative to their neighbours without, small CNN with four "
        f"tasks, batch 128, median of {options.rounds} rounds in one fit",
        ["weighting, recorders", "ratio", "min-max", "aim"],
        rows,
    )


if __name__ == "__main__":
    main()
