"""Which sharing scheme wins where the best one is known.

    python benchmarks/architecture_problems.py [--seeds 3] [--steps 600]

Regressions from teachers. The tasks of a group read the same hidden features of one teacher; tasks of
different groups have nothing in common but the input. Best known is hard sharing with one group, separate
networks with a group for each task, and one network for each of two groups where they are half and half.
In training a sample has the label of one task only.
"""

import argparse
import math
import statistics
from functools import partial

import torch
from _interval import interval
from _table import write_table
from architectures import SCHEMES, backbone, heads, penalty
from torch import Tensor, nn

from polytask.models import MultiTaskModel

INPUTS, HIDDEN, TASKS, TRAIN, NOISE = 8, 3, 8, 100, 0.2
GROUPS = {
    "related": [0] * TASKS,
    "unrelated": list(range(TASKS)),
    "half and half": [2 * task // TASKS for task in range(TASKS)],
}


class Groups(MultiTaskModel):
    """Hard sharing within each group: the best known scheme of every problem, which knows the groups."""

    def __init__(self, groups: list[int]) -> None:
        super().__init__(heads(16, len(groups)))
        self.group = dict(zip(self.task_names, groups, strict=True))
        self.backbones = nn.ModuleList(backbone(INPUTS, 32, 16) for _ in range(max(groups) + 1))

    def represent(self, x: Tensor, tasks: object = None) -> list[Tensor]:
        return [each(x) for each in self.backbones]

    def for_task(self, representation: list[Tensor], task: str) -> Tensor:
        return representation[self.group[task]]


def problem(groups: list[int], rows: int, seed: int) -> tuple[Tensor, dict[str, Tensor]]:
    """Inputs, and targets of unit variance before the noise; the teachers depend on the seed alone."""
    teachers = torch.Generator().manual_seed(1000 + seed)
    hidden = [torch.randn(INPUTS, HIDDEN, generator=teachers) for _ in range(TASKS)]
    weights = [torch.randn(HIDDEN, 1, generator=teachers) for _ in range(TASKS)]
    draws = torch.Generator().manual_seed(2000 + 10 * seed + rows)
    x = torch.randn(rows, INPUTS, generator=draws)
    targets = {}
    for task, group in enumerate(groups):
        clean = torch.sin(1.5 * x @ hidden[group] / math.sqrt(INPUTS)) @ weights[task]
        clean = (clean - clean.mean()) / clean.std()
        targets[f"t{task}"] = clean + NOISE * torch.randn(clean.shape, generator=draws)
    return x, targets


def error(model: MultiTaskModel, x: Tensor, targets: dict[str, Tensor]) -> float:
    """The mean over tasks of the squared error, which is 1 for a constant and a little above 0 at best."""
    model.eval()
    with torch.no_grad():
        errors = [(output - targets[task]).square().mean() for task, output in model(x).items()]
    model.train()
    return float(torch.stack(errors).mean())


def loss(model: MultiTaskModel, x: Tensor, targets: dict[str, Tensor]) -> Tensor:
    """The sum of the tasks' errors, each on the samples that have its label."""
    outputs = model(x)
    mine = {task: slice(index, None, TASKS) for index, task in enumerate(model.task_names)}
    errors = [(outputs[task][rows] - targets[task][rows]).square().mean() for task, rows in mine.items()]
    return torch.stack(errors).sum() + penalty(model)


def trained(model: MultiTaskModel, groups: list[int], seed: int, steps: int) -> float:
    """The test error where the validation error was least."""
    x, targets = problem(groups, TASKS * TRAIN, seed)
    val, test = problem(groups, 1000, seed), problem(groups, 4000, seed)
    optimizer = torch.optim.Adam(model.parameters(), lr=5e-3)
    best, found = math.inf, math.nan
    for step in range(1, steps + 1):
        optimizer.zero_grad()
        loss(model, x, targets).backward()
        optimizer.step()
        if step % 10 == 0:
            now = error(model, *val)
            if now < best:
                best, found = now, error(model, *test)
    return found


def problem_rows(seeds: int, steps: int) -> list[list[str]]:
    found: dict[str, dict[str, list[float]]] = {}
    for kind, groups in GROUPS.items():
        builders = {name: partial(build, INPUTS, 32, 16, TASKS) for name, build in SCHEMES.items()}
        builders["the known groups"] = partial(Groups, groups)
        for name, build in builders.items():
            for seed in range(seeds):
                torch.manual_seed(seed)
                value = trained(build(), groups, seed, steps)
                found.setdefault(name, {}).setdefault(kind, []).append(value)
    winners = {kind: min(SCHEMES, key=lambda name: statistics.mean(found[name][kind])) for kind in GROUPS}
    rows = [[name, *(interval(by_kind[kind]) for kind in GROUPS)] for name, by_kind in found.items()]
    return [*rows, ["least of the schemes", *winners.values()]]


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--steps", type=int, default=600)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    write_table(
        "architecture_problems",
        f"Test error of {TASKS} regressions with {TRAIN} samples each (1 is a constant, {NOISE**2:.2f} the "
        f"noise), mean and 95 % interval over {arguments.seeds} seeds",
        ["scheme", *GROUPS],
        problem_rows(arguments.seeds, arguments.steps),
    )


if __name__ == "__main__":
    main()
