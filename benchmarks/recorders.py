"""What the recorders add to the time of a fit, on the small CNN of the overhead benchmark.

Fits with and without a recorder stand side by side in one process, in another order in each round; the
median of the rounds' ratios is printed and written to ``results/``.

    python benchmarks/recorders.py [--rounds 5] [--steps 100] [case ...]
"""

import argparse
import functools
import statistics
import tempfile
import warnings
from collections.abc import Callable

import pytorch_lightning as pl
import torch
from _table import write_table
from step_overhead import CLASSES, TASKS, Batches, Clock, cnn
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


def seconds(data: Batches, weighting: Weighting, recorders: list[pl.Callback]) -> float:
    """Of one epoch, its last file written."""
    torch.manual_seed(0)
    system = System(
        cnn(),
        MultiTaskLoss({task: nn.CrossEntropyLoss() for task in TASKS}, weighting=weighting),
        functools.partial(torch.optim.AdamW, lr=1e-3),
        metrics={task: MulticlassAccuracy(CLASSES) for task in TASKS},
        dataloaders={"train": DataLoader(data, batch_size=None)},
    )
    clock = Clock()
    with tempfile.TemporaryDirectory() as folder:
        trainer = pl.Trainer(
            max_epochs=1,
            logger=[CSVLogger(folder)],
            # The clock stops when the recorders are done.
            callbacks=[*recorders, clock],
            default_root_dir=folder,
            enable_checkpointing=False,
            enable_progress_bar=False,
            enable_model_summary=False,
            accelerator="cpu",
        )
        trainer.fit(system)
    return clock.seconds


def ratio(data: Batches, case: str, number: int) -> float:
    """With the recorders over without, one after the other; every second time the other way round."""
    weighting, recorders, _ = CASES[case]
    runs: list[Callable[[], list[pl.Callback]]] = [list, recorders]
    times = [seconds(data, weighting(), run()) for run in (runs if number % 2 else runs[::-1])]
    without, with_recorders = times if number % 2 else times[::-1]
    return with_recorders / without


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--steps", type=int, default=100)
    parser.add_argument(
        "cases", nargs="*", metavar="case", help="part of a case's name; all where none is given"
    )
    options = parser.parse_args()
    warnings.simplefilter("ignore")
    data = Batches((3, 32, 32), 128, options.steps)
    chosen = [case for case in CASES if not options.cases or any(part in case for part in options.cases)]
    ratios: dict[str, list[float]] = {case: [] for case in chosen}
    for number in range(options.rounds + 1):
        for case in chosen:
            ratios[case].append(ratio(data, case, number))
    rows = [
        [
            case,
            f"{statistics.median(values[1:]):.3f}",
            f"{min(values[1:]):.2f}-{max(values[1:]):.2f}",
            CASES[case][2],
        ]
        for case, values in ratios.items()
    ]
    write_table(
        "recorders",
        f"Time of a fit of {options.steps} steps with recorders relative to one without, small CNN with four "
        f"tasks, batch 128, median of {options.rounds} pairs",
        ["weighting, recorders", "ratio", "min-max", "aim"],
        rows,
    )


if __name__ == "__main__":
    main()
