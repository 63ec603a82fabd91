"""What the recorders add to the time of a fit, on the small CNN of the overhead benchmark.

In one fit the recorders take part in every second epoch: from its start, where they open their file, to its
end, where they write it. Each step's time, with the loop up to the next, is the median over the rounds, and
an epoch's is the sum of those. The ratio is printed and written to ``results/``, with the least and the
greatest of the rounds' own.

    python benchmarks/recorders.py [--rounds 11] [--steps 50] [case ...]
"""

import argparse
import functools
import itertools
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
from torch.utils.data import DataLoader
from torchmetrics.classification import MulticlassAccuracy

from polytask.diagnostics import GradientRecorder, LossRecorder, WeightRecorder
from polytask.loggers import CSVLogger
from polytask.losses import MultiTaskLoss
from polytask.system import System
from polytask.weighting import Equal, UPGrad, Weighting

AIM = "1.03"
CASES: dict[str, tuple[Callable[[], Weighting], Callable[[], list[pl.Callback]], str]] = {
    "Equal, GradientRecorder(every=50)": (Equal, lambda: [GradientRecorder(every=50)], AIM),
    "Equal, GradientRecorder(every=50, level='parameters')": (
        Equal,
        lambda: [GradientRecorder(every=50, level="parameters")],
        "-",
    ),
    "UPGrad, GradientRecorder(every=50)": (UPGrad, lambda: [GradientRecorder(every=50)], AIM),
    "Equal, LossRecorder(), WeightRecorder()": (Equal, lambda: [LossRecorder(), WeightRecorder()], "-"),
}


class Alternate(pl.Callback):
    """Lets recorders take part in every second epoch only, and times each step."""

    def __init__(self, recorders: list[pl.Callback]) -> None:
        self.recorders = recorders
        self.records = False
        self.marks: dict[bool, list[list[float]]] = {False: [], True: []}

    def on_train_epoch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self.mark(trainer)
        pair, second = divmod(trainer.current_epoch, 2)
        self.records = bool(second) == bool(pair % 2)
        self.marks[self.records].append([])
        self.mark(trainer)
        if self.records:
            trainer.callbacks = [self, *self.recorders]
            for recorder in self.recorders:
                recorder.on_train_start(trainer, pl_module)

    def on_train_batch_start(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, batch: Any, batch_idx: int
    ) -> None:
        if batch_idx:
            self.mark(trainer)

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        if self.records:
            trainer.callbacks = [self]
            for recorder in self.recorders:
                recorder.on_train_end(trainer, pl_module)

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self.mark(trainer)

    def mark(self, trainer: pl.Trainer) -> None:
        if self.marks[self.records]:
            self.marks[self.records][-1].append(time.perf_counter())

    def steps(self, records: bool) -> list[list[float]]:
        """Seconds of each step of each epoch; the first round warms up."""
        return [[b - a for a, b in itertools.pairwise(marks)] for marks in self.marks[records][1:]]

    def ratio(self) -> float:
        own, other = (
            sum(map(statistics.median, zip(*self.steps(records), strict=True))) for records in (True, False)
        )
        return own / other

    def ratios(self) -> list[float]:
        """Of each round alone."""
        rounds = zip(self.steps(records=True), self.steps(records=False), strict=True)
        return [sum(own) / sum(other) for own, other in rounds]


def alternated(data: Batches, case: str, rounds: int) -> Alternate:
    weighting, recorders, _ = CASES[case]
    torch.manual_seed(0)
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
            max_epochs=2 * (rounds + 1),
            logger=[CSVLogger(folder)],
            callbacks=[alternate],
            default_root_dir=folder,
            enable_checkpointing=False,
            enable_progress_bar=False,
            enable_model_summary=False,
            accelerator="cpu",
        )
        trainer.fit(system)
    return alternate


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=11)
    parser.add_argument("--steps", type=int, default=50)
    parser.add_argument(
        "cases", nargs="*", metavar="case", help="part of a case's name; all where none is given"
    )
    options = parser.parse_args()
    warnings.simplefilter("ignore")
    data = Batches((3, 32, 32), 128, options.steps)
    chosen = [case for case in CASES if not options.cases or any(part in case for part in options.cases)]
    rows = []
    for case in chosen:
        found = alternated(data, case, options.rounds)
        ratios = found.ratios()
        rows.append([case, f"{found.ratio():.3f}", f"{min(ratios):.2f}-{max(ratios):.2f}", CASES[case][2]])
    write_table(
        "recorders",
        f"Time of an epoch of {options.steps} steps with recorders relative to one without, small CNN with "
        f"four tasks, batch 128, medians of {options.rounds} rounds",
        ["weighting, recorders", "ratio", "min-max", "aim"],
        rows,
    )


if __name__ == "__main__":
    main()
