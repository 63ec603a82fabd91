"""Two regressions of one input with a noise of 10 and of 1, as in the notebook of Kendall, Gal and Cipolla.

100 points, a hidden layer of 1,024 units with ReLU, Adam, batches of 20. The notebook trains 2,000 epochs and
learns the noise as 8.59 and 0.92 (the network fits a part of it). `UW` does the same here, with five seeds.
Then all weightings take the same, smaller number of steps; what counts is how far each task is from its line
without noise, in units of the task's noise, and the weights: 1 / (2 noise^2) is right, a ratio of 0.01.

    python benchmarks/kendall.py [--steps 300] [--epochs 2000]
"""

import argparse
import functools
import math
from collections.abc import Iterator
from typing import NamedTuple

import torch
from _sheet import COLORS, sheet
from _toys import Make, all_weightings, in_processes, keep
from _training import Batch, Training
from matplotlib.axes import Axes
from torch import Tensor, nn

from polytask.models import MLP, MultiHead
from polytask.weighting import UW

TASKS = ["noisy", "clear"]
NOISE = torch.tensor([10.0, 1.0])
SLOPES, OFFSETS = (2.0, 3.0), (8.0, 3.0)
NOTEBOOK = (8.59, 0.92)
POINTS, BATCH = 100, 20
WEIGHTINGS = all_weightings({task: 0.5 / sigma**2 for task, sigma in zip(TASKS, NOISE.tolist(), strict=True)})


def lines(x: Tensor) -> Tensor:
    """The targets without noise, ``(points, tasks)``."""
    return x * torch.tensor(SLOPES) + torch.tensor(OFFSETS)


class Problem:
    """The points of one seed, and a fresh network."""

    def __init__(self, make: Make, seed: int) -> None:
        torch.manual_seed(seed)
        self.x = torch.randn(POINTS, 1)
        self.y = lines(self.x) + NOISE * torch.randn(POINTS, 2)
        heads = {task: nn.Linear(1024, 1) for task in TASKS}
        self.training = Training(MultiHead(MLP(1, [], 1024, activate_output=True), heads), make, TASKS)

    def batches(self) -> Iterator[Batch]:
        while True:
            for rows in torch.randperm(POINTS).split(BATCH):
                yield self.x[rows], dict(zip(TASKS, self.y[rows].split(1, 1), strict=True))

    def run(self, steps: int) -> Tensor:
        return self.training.run(self.batches(), steps, POINTS // BATCH)

    def errors(self) -> Tensor:
        """Root mean squared distance from the lines, in units of the noise, on points between -2 and 2."""
        x = torch.linspace(-2, 2, 101)[:, None]
        with torch.no_grad():
            outputs = torch.cat(list(self.training.model(x).values()), 1)
        return (outputs - lines(x)).square().mean(0).sqrt() / NOISE

    def residuals(self) -> Tensor:
        """Root mean squared error on the training points."""
        with torch.no_grad():
            outputs = torch.cat(list(self.training.model(self.x).values()), 1)
        return (outputs - self.y).square().mean(0).sqrt()


class Run(NamedTuple):
    curve: Tensor
    ratio: float


def run(steps: int, name: str) -> Run:
    """Errors ``(checks, tasks)`` while one weighting trains, and the ratio of its weights at the end."""
    problem, curve = Problem(WEIGHTINGS[name], 0), []
    for _ in range(20):
        curve.append(problem.errors())
        losses = problem.run(steps // 20)
    noisy, clear = problem.training.weights(losses[-POINTS // BATCH :].mean(0)).tolist()
    return Run(torch.stack([*curve, problem.errors()]), noisy / clear)


def learned_noise(epochs: int, seed: str) -> tuple[list[float], list[float]]:
    """What `UW` learns as the noise, and what is left of it on the training points."""
    problem = Problem(UW, int(seed))
    problem.run(epochs * POINTS // BATCH)
    weighting = problem.training.weighting
    assert isinstance(weighting, UW)
    return list(weighting.get_uncertainties().values()), problem.residuals().tolist()


def noise_notes(epochs: int) -> list[str]:
    found = in_processes(functools.partial(learned_noise, epochs), [str(seed) for seed in range(5)])
    learned, left = (torch.tensor(values) for values in zip(*found.values(), strict=True))
    return [
        f"`UW` after {epochs} epochs, the noise it learned and the root mean squared error left on"
        " the training points:",
        "",
        "| seed | learned noise | error left |",
        "|---|---|---|",
        *(
            f"| {seed} | {a:.2f}, {b:.2f} | {c:.2f}, {d:.2f} |"
            for seed, ((a, b), (c, d)) in enumerate(zip(learned.tolist(), left.tolist(), strict=True))
        ),
        "",
        "Mean {:.2f} and {:.2f}; the notebook has {} and {}; the noise is {:g} and {:g}.".format(
            *learned.mean(0).tolist(), *NOTEBOOK, *NOISE.tolist()
        ),
    ]


def row(name: str, found: Run) -> list[str]:
    noisy, clear = found.curve[-1].tolist()
    return [name, f"{noisy:.2f}", f"{clear:.2f}", "" if math.isnan(found.ratio) else f"{found.ratio:.3g}"]


def picture(found: dict[str, Run], steps: int) -> None:
    across = torch.linspace(0, steps, 21)

    def draw(panel: Axes, name: str) -> None:
        for color, curve in zip(COLORS, found[name].curve.unbind(1), strict=False):
            panel.plot(across, curve, color=color, linewidth=1)
        panel.set_yscale("log")
        panel.set_ylim(0.05, 5)

    caption = "Distance from the line in units of the noise, by step; blue has a noise of 10, orange of 1"
    sheet("kendall", list(found), draw, caption)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--steps", type=int, default=300)
    parser.add_argument("--epochs", type=int, default=2000)
    arguments = parser.parse_args()
    found = in_processes(functools.partial(run, arguments.steps), WEIGHTINGS)
    notes = [
        "The distances are root mean squares over 101 points between -2 and 2; one seed. A method that makes"
        " an update without weights has no ratio. `MoDo` and `SDMGrad` take three batches a step.",
        "",
        *noise_notes(arguments.epochs),
    ]
    title = f"Kendall's regressions: distance from the lines in units of the noise, {arguments.steps} steps"
    header = ["method", "noise 10", "noise 1", "ratio of weights"]
    keep("kendall", title, header, [row(*item) for item in found.items()], notes)
    picture(found, arguments.steps)


if __name__ == "__main__":
    main()
