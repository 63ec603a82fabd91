"""The two-task landscape of the CAGrad, Nash-MTL and FAMO papers: all weightings from the five starts.

The first loss is multiplied by 0.1, as in the last two papers. Both are shifted by 20, the smallest shift
that keeps them above 0, which methods with logarithms or ratios need; no gradient is changed by it. The
Pareto front goes from (-7, -8.43) over (0, -8.36) to (7, -8.43); the papers show it as the line through its
middle, where both gradients of the unscaled losses are equally long.

The papers take 35,000 steps of Adam with a step size of 1e-3. Here they are ten times as long and a tenth
as many, and Adam's moments forget ten times as fast, which goes the same way.

    python benchmarks/landscape.py [--steps 3500]
"""

import functools

import torch
from _sheet import sheet, trace
from _toys import Walk, Walked, all_weightings, in_processes, keep, steps_given
from matplotlib.axes import Axes
from torch import Tensor

STARTS = ((-8.5, 7.5), (0.0, 0.0), (9.0, 9.0), (-7.5, -0.5), (9.0, -1.0))
END = 7.0
NEAR = 0.05
SCALE = 0.1
# The weights that undo the first loss's scale are the right ones here.
WEIGHTINGS = all_weightings({"task0": 1 / SCALE, "task1": 1.0})


def losses(points: Tensor) -> Tensor:
    """Both losses at ``(..., 2)``, in the last dimension."""
    x, y = points.unbind(-1)
    bend = torch.tanh(-y)
    upper, lower = torch.tanh(y / 2).clamp(min=0), torch.tanh(-y / 2).clamp(min=0)
    trenches = (0.5 * (-x - 7) - bend, 0.5 * (-x + 3) + bend + 2)
    both = []
    for trench, middle, scale in zip(trenches, (END, -END), (SCALE, 1.0), strict=True):
        above = trench.abs().clamp(min=5e-6).log() + 6
        below = ((-x + middle) ** 2 + 0.1 * (-y - 8) ** 2) / 10 - 20
        both.append(scale * (above * upper + below * lower + 20))
    return torch.stack(both, -1)


def front(x: Tensor) -> Tensor:
    """The second coordinate of the front, where the two gradients are opposed; by fixed point."""
    y = torch.full_like(x, -8.0)
    for _ in range(50):
        depth = 20 + (x**2 - END**2) / 10 - 0.01 * (y + 8) ** 2
        y = -8 - 25 * depth / torch.cosh(y / 2) ** 2 / torch.tanh(-y / 2)
    return y


def distance(points: Tensor) -> Tensor:
    """How far points ``(..., 2)`` are from the front, along the second coordinate between its ends."""
    x, y = points.unbind(-1)
    nearest = x.clamp(-END, END)
    return torch.hypot(x - nearest, y - front(nearest))


def walk(steps: int) -> Walk:
    """The papers' path, with steps ten times as long."""
    return Walk(losses, torch.tensor(STARTS), steps, lr=1e-2, betas=(0.9**10, 0.999**10), arrived=0.01)


def run(steps: int, name: str) -> Walked:
    return walk(steps).run(WEIGHTINGS[name])


def row(name: str, walked: Walked) -> list[str]:
    ends = walked.path[-1]
    far = distance(ends)
    cells = [
        f"({x:.2f}, {y:.2f})" + ("" if gap < NEAR else f" off by {gap:.2f}")
        for (x, y), gap in zip(ends.tolist(), far.tolist(), strict=True)
    ]
    return [name, *cells, f"{int((far < NEAR).sum())} of {len(STARTS)}", str(walked.unsolved or "")]


def notes(ends: dict[str, Tensor]) -> list[str]:
    """Which methods reach the front, and where on it."""
    reached = {name: int((distance(points) < NEAR).sum()) for name, points in ends.items()}
    every = [name for name, count in reached.items() if count == len(STARTS)]
    some = [f"{name} ({count})" for name, count in reached.items() if 0 < count < len(STARTS)]
    never = [name for name, count in reached.items() if not count]
    middle = [name for name in every if bool((ends[name][:, 0].abs() < 0.5).all())]
    return [
        f"A point is on the front where it is nearer than {NEAR}; the last column counts the steps"
        " of all paths in which a method found no weights and gave none.",
        "",
        f"- On the front from every start ({len(every)}): {', '.join(every)}.",
        f"- Of these, in its middle (|x| < 0.5) each time ({len(middle)}): {', '.join(middle)}.",
        f"- From some starts ({len(some)}): {', '.join(some)}.",
        f"- From none ({len(never)}): {', '.join(never) or '-'}.",
        "",
        "The papers' claims, from (9, 9): the plain sum does not reach the front. Here the plain sum ends at"
        " ({:.2f}, {:.2f}), {:.2f} away.".format(*ends["Equal"][2].tolist(), distance(ends["Equal"][2])),
    ]


def picture(paths: dict[str, Tensor]) -> None:
    across, up = torch.linspace(-11, 11, 110), torch.linspace(-11, 11, 110)
    y, x = torch.meshgrid(up, across, indexing="ij")
    line = torch.linspace(-END, END, 29)
    heights = losses(torch.stack([x, y], -1)) @ torch.tensor([1 / SCALE, 1.0])

    def draw(panel: Axes, name: str) -> None:
        panel.contour(across, up, heights, levels=12, colors="0.8", linewidths=0.5)
        panel.plot(line, front(line), color="black", linewidth=2)
        trace(panel, paths[name], every=10)

    caption = (
        "From the starts (dots) to the ends (stars); the front is black, grey lines are of the unscaled sum"
    )
    sheet("landscape", list(paths), draw, caption)


def main() -> None:
    steps = steps_given(__doc__, 3500)
    found = in_processes(functools.partial(run, steps), WEIGHTINGS)
    ends = {name: walked.path[-1] for name, walked in found.items()}
    title = f"Where every weighting ends on the two-task landscape, after {steps} steps at the most"
    header = ["method", *(f"from ({x:g}, {y:g})" for x, y in STARTS), "on the front", "no weights"]
    keep("landscape", title, header, [row(*item) for item in found.items()], notes(ends))
    picture({name: walked.path for name, walked in found.items()})


if __name__ == "__main__":
    main()
