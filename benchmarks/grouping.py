"""Tasks whose relations are known: two related pairs, and one task that works against both.

The tasks read the two outputs of a shared network. Those of a pair read the same output with almost the same
target; the adversarial task reads the sum of both and wants its opposite. Affinities are recorded in a joint
training, groups proposed from them, and the joint model is compared with single-task models.

    python benchmarks/grouping.py [--seeds 5]
"""

import argparse
import functools
import logging
import tempfile
import warnings
from pathlib import Path

import pytorch_lightning as pl
import torch
from _table import write_table
from torch import Tensor, nn
from torch.utils.data import DataLoader

from polytask.compare import delta_by_task, delta_m
from polytask.diagnostics import Affinity, Grouping, group_tasks, read_affinity
from polytask.losses import MultiTaskLoss
from polytask.models import MLP, MultiHead
from polytask.system import System

# What each task reads of the two outputs.
READS = {
    "left": (1.0, 0.0),
    "left_too": (1.0, 0.0),
    "right": (0.0, 1.0),
    "right_too": (0.0, 1.0),
    "adversary": (1.0, 1.0),
}
EXPECTED = {frozenset({"left", "left_too"}), frozenset({"right", "right_too"}), frozenset({"adversary"})}
Batch = tuple[Tensor, dict[str, Tensor]]


class Problem:
    """Training batches and test data of one seed."""

    def __init__(self, seed: int, steps: int, rows: int = 64) -> None:
        self.generator = torch.Generator().manual_seed(seed)
        self.directions = torch.randn(10, 2, generator=self.generator) / 10**0.5
        self.batches = [self.batch(rows) for _ in range(steps)]
        self.test = self.batch(2000)

    def batch(self, rows: int) -> Batch:
        inputs = torch.randn(rows, 10, generator=self.generator)
        wanted = torch.tanh(2 * inputs @ self.directions)
        targets = {}
        for task, reads in READS.items():
            noise = 0.1 * torch.randn(rows, 1, generator=self.generator)
            sign = -1.0 if task == "adversary" else 1.0
            targets[task] = sign * wanted @ torch.tensor(reads)[:, None] + noise
        return inputs, targets


def model(tasks: list[str]) -> MultiHead:
    """A shared network whose outputs the tasks read as they are."""
    heads = {}
    for task in tasks:
        head = nn.Linear(2, 1, bias=False).requires_grad_(False)
        head.weight.copy_(torch.tensor([READS[task]]))
        heads[task] = head
    return MultiHead(MLP(10, [32], 2), heads)


def train(problem: Problem, tasks: list[str], seed: int, folder: Path) -> dict[str, float]:
    """The tasks' errors on test data after a joint training, whose affinities are recorded in the folder."""
    torch.manual_seed(seed)
    batches = [(x, {task: y[task] for task in tasks}) for x, y in problem.batches]
    system = System(
        model(tasks),
        MultiTaskLoss({task: nn.MSELoss() for task in tasks}),
        functools.partial(torch.optim.Adam, lr=3e-3),
        dataloaders={"train": DataLoader(batches, batch_size=None)},
    )
    trainer = pl.Trainer(
        max_epochs=1,
        accelerator="cpu",
        default_root_dir=folder,
        callbacks=[Affinity(every=10)] if len(tasks) > 1 else [],
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    trainer.fit(system)
    inputs, targets = problem.test
    with torch.no_grad():
        outputs = system.model.eval()(inputs)
        return {task: float(nn.functional.mse_loss(outputs[task], targets[task])) for task in tasks}


def proposals(folder: Path) -> dict[str, Grouping]:
    """The groups that each form of affinity proposes for three models."""
    forms = ("lookahead", "first_order")
    return {form: group_tasks(read_affinity(folder, form), 3) for form in forms}


def right(grouping: Grouping) -> bool:
    """Whether it finds the pairs and leaves the adversary alone."""
    return {frozenset(group) for group in grouping.groups} == EXPECTED


def gains(errors: dict[str, float], single: dict[str, float]) -> dict[str, float]:
    """The terms of delta_m: positive is better than the model of this task alone."""
    own, other = ({(task, "error"): given[task] for task in single} for given in (errors, single))
    return delta_by_task(own, other, dict.fromkeys(own, False))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--steps", type=int, default=300)
    options = parser.parse_args()
    warnings.simplefilter("ignore")
    logging.getLogger("pytorch_lightning").setLevel(logging.ERROR)
    tasks, rows = list(READS), []
    for seed in range(options.seeds):
        problem = Problem(seed, options.steps)
        with tempfile.TemporaryDirectory() as folder:
            joint = train(problem, tasks, seed, Path(folder))
            found = proposals(Path(folder))
            groups = [train(problem, list(group), seed, Path(folder)) for group in found["lookahead"].groups]
            single = {task: train(problem, [task], seed, Path(folder))[task] for task in tasks}
        together = gains(joint, single)
        grouped = gains({task: error for group in groups for task, error in group.items()}, single)
        others = delta_m({task: gain for task, gain in together.items() if task != "adversary"})
        proposed = [" / ".join(" ".join(group) for group in grouping.groups) for grouping in found.values()]
        hits = ["yes" if right(grouping) else "no" for grouping in found.values()]
        means = (together["adversary"], others, delta_m(grouped))
        rows.append([str(seed), proposed[0], *hits, *(f"{mean:+.0f} %" for mean in means)])
    write_table(
        "grouping",
        "Two related pairs and an adversary: the groups proposed for three models, and the terms of delta_m "
        "(positive: better than a model of the task alone)",
        [
            "seed",
            "groups by lookahead",
            "right",
            "right by first order",
            "adversary's term",
            "mean of the others'",
            "delta_m in the groups",
        ],
        rows,
    )


if __name__ == "__main__":
    main()
