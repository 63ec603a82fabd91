"""GradNorm's toy regression: tasks that differ in scale only, for which equal weights see the largest alone.

The targets of task i are s_i tanh((B + E_i) x) with x uniform in (0, 1)^250, 100 targets, B from N(0, 10) and
E_i from N(0, 3.5); these numbers are taken as standard deviations. The backbone has four layers of 100 with
ReLU, the heads are linear; Adam with 1e-3 and fresh batches of 100. Two tasks have the scales 1 and 100, ten
tasks those of the paper. What counts is the task-normalised loss L_i / L_i(0) on points not trained on.
`Fixed` is given 1 / s^2, which makes all tasks alike.

    python benchmarks/gradnorm_toy.py [--steps 300]
"""

import functools
import math
from collections.abc import Iterator
from typing import NamedTuple

import torch
from _sheet import sheet
from _toys import Make, all_weightings, in_processes, keep, steps_given
from _training import Batch, Training
from matplotlib import colormaps
from matplotlib.axes import Axes
from torch import Tensor, nn

from polytask.models import MLP, MultiHead
from polytask.weighting import GradNorm

INPUTS, TARGETS, WIDTH, BATCH = 250, 100, 100, 100
SCALES = {2: (1, 100), 10: (48, 3, 54, 16, 9, 30, 52, 26, 47, 81)}
ALPHA = 0.12
CHECKS = 15


def named(scales: tuple[int, ...]) -> dict[str, int]:
    return {f"task{place}": scale for place, scale in enumerate(scales)}


def weightings(scales: tuple[int, ...]) -> dict[str, Make]:
    """All with their defaults, and GradNorm with the paper's exponent."""
    fair = {task: 1 / scale**2 for task, scale in named(scales).items()}
    return {f"GradNorm, alpha {ALPHA}": lambda: GradNorm(alpha=ALPHA), **all_weightings(fair)}


class Problem:
    """The targets of one seed, and a fresh network."""

    def __init__(self, make: Make, scales: tuple[int, ...], seed: int = 0) -> None:
        torch.manual_seed(seed)
        self.scales = named(scales)
        common = 10 * torch.randn(INPUTS, TARGETS)
        self.maps = {task: common + 3.5 * torch.randn(INPUTS, TARGETS) for task in self.scales}
        self.test = self.batch(1000)
        heads = {task: nn.Linear(WIDTH, TARGETS) for task in self.scales}
        model = MultiHead(MLP(INPUTS, [WIDTH] * 3, WIDTH, activate_output=True), heads)
        self.training = Training(model, make, list(self.scales))
        self.first = self.errors()

    def batch(self, size: int) -> Batch:
        x = torch.rand(size, INPUTS)
        return x, {task: scale * torch.tanh(x @ self.maps[task]) for task, scale in self.scales.items()}

    def batches(self) -> Iterator[Batch]:
        while True:
            yield self.batch(BATCH)

    def errors(self) -> Tensor:
        """The tasks' losses on the test points."""
        with torch.no_grad():
            return torch.stack(list(self.training.losses(self.test).values()))

    def imbalance(self, weights: Tensor) -> float:
        """How far GradNorm's equation is from holding: w n / r^alpha of the tasks, largest over smallest."""
        losses = torch.stack(list(self.training.losses(self.test).values()))
        *_, last = (layer for layer in self.training.model.backbone.modules() if isinstance(layer, nn.Linear))
        grads = [torch.autograd.grad(loss, last.weight, retain_graph=True)[0] for loss in losses]
        rates = losses.detach() / self.first
        pulls = weights * torch.stack(grads).flatten(1).norm(dim=1) / (rates / rates.mean()) ** ALPHA
        return float(pulls.max() / pulls.min())


class Run(NamedTuple):
    curve: Tensor
    weights: Tensor
    imbalance: float


def run(scales: tuple[int, ...], steps: int, name: str) -> Run:
    """Normalised losses ``(checks, tasks)`` on the way, the weights and GradNorm's equation at the end."""
    problem = Problem(weightings(scales)[name], scales)
    curve, batches = [problem.errors()], problem.batches()
    for _ in range(CHECKS):
        losses = problem.training.run(batches, steps // CHECKS, 10)
        curve.append(problem.errors())
    weights = problem.training.weights(losses[-1])
    return Run(torch.stack(curve) / problem.first, weights, problem.imbalance(weights))


def row(name: str, two: Run, ten: Run) -> list[str]:
    small, large = two.curve[-1].tolist()
    last = ten.curve[-1]
    ratio = float(two.weights[0] / two.weights[1])
    numbers = [f"{small:.2f}", f"{large:.2f}", number(ratio), f"{last.mean():.2f}", f"{last.max():.2f}"]
    return [name, *numbers, number(ten.imbalance)]


def number(value: float) -> str:
    """Empty where a method has no weights, or a weight of 0 or below makes it no ratio."""
    return f"{value:.3g}" if 0 < value < math.inf else ""


def notes(ten: dict[str, Run]) -> list[str]:
    order = sorted(ten, key=lambda name: float(ten[name].curve[-1].mean()))
    ours, equal = f"GradNorm, alpha {ALPHA}", "Equal"
    return [
        "Losses are divided by those of the untrained network; one seed, no tuning. The weight ratio is"
        " that of the task of scale 1 to that of scale 100. The last column is GradNorm's equation, the pull"
        f" w n / r^{ALPHA} on the last shared layer, largest over smallest of ten tasks: 1 where it holds.",
        "",
        "The paper's claim for ten tasks: GradNorm has a lower mean than equal weights. Here"
        f" {ten[ours].curve[-1].mean():.3f} against {ten[equal].curve[-1].mean():.3f}, and the imbalance of"
        f" the pulls is {ten[ours].imbalance:.2f} against {ten[equal].imbalance:.2f}.",
        "",
        f"From the lowest mean of ten tasks to the highest: {', '.join(order)}.",
    ]


def picture(ten: dict[str, Run], steps: int) -> None:
    across, colors = torch.linspace(0, steps, CHECKS + 1), colormaps["viridis"]

    def draw(panel: Axes, name: str) -> None:
        for scale, curve in zip(SCALES[10], ten[name].curve.unbind(1), strict=True):
            panel.plot(across, curve, color=colors(scale / max(SCALES[10])), linewidth=1)
        panel.set_ylim(0, 1.1)

    caption = "Ten tasks: losses over their first, by step; the smallest scale is dark, the largest yellow"
    sheet("gradnorm_toy", list(ten), draw, caption)


def main() -> None:
    steps = steps_given(__doc__, 300)
    names = list(weightings(SCALES[10]))
    two, ten = (in_processes(functools.partial(run, scales, steps), names) for scales in SCALES.values())
    header = [
        "method",
        "scale 1",
        "scale 100",
        "weight ratio",
        "ten tasks, mean",
        "ten tasks, worst",
        "imbalance",
    ]
    title = f"GradNorm's toy: task-normalised losses after {steps} steps"
    keep("gradnorm_toy", title, header, [row(name, two[name], ten[name]) for name in names], notes(ten))
    picture(ten, steps)


if __name__ == "__main__":
    main()
