"""Fonseca and Fleming's problem in twenty dimensions, whose front is concave: all weightings, five starts.

With c = (1, ..., 1) / sqrt(n) the losses are 1 - exp(-|x - c|^2) and 1 - exp(-|x + c|^2). The front is the
line x = t c with |t| <= 1; t = 0 is its middle. As it is concave, a weighted sum with constant weights has
its minima at the ends only, close to t = 1 and t = -1.

    python benchmarks/fonseca.py [--steps 600]
"""

import functools
import math

import torch
from _sheet import sheet, trace
from _toys import Walk, Walked, all_weightings, in_processes, keep, steps_given
from matplotlib.axes import Axes
from torch import Tensor

SIZE = 20
CENTRE = 1 / math.sqrt(SIZE)
NEAR = 0.05
INSIDE = 0.9
WEIGHTINGS = all_weightings({"task0": 2.0, "task1": 1.0})


def losses(points: Tensor) -> Tensor:
    """Both losses at ``(..., n)``, in the last dimension."""
    squares = [(points - centre).square().sum(-1) for centre in (CENTRE, -CENTRE)]
    return -torch.expm1(-torch.stack(squares, -1))


def place(points: Tensor) -> Tensor:
    """Where on the front, *t* from -1 to 1, the nearest of its points is."""
    return (points.mean(-1) / CENTRE).clamp(-1, 1)


def distance(points: Tensor) -> Tensor:
    """How far points ``(..., n)`` are from the front."""
    return (points - CENTRE * place(points)[..., None]).norm(dim=-1)


def walk(steps: int) -> Walk:
    """From five points drawn uniformly from (-0.5, 0.5) in each dimension."""
    # In float32 a loss would be 0 at an end of the front, which has no logarithm.
    starts = torch.rand(5, SIZE, dtype=torch.float64, generator=torch.Generator().manual_seed(0)) - 0.5
    return Walk(losses, starts, steps, lr=5e-3, betas=(0.9, 0.999), arrived=1e-3)


def run(steps: int, name: str) -> Walked:
    return walk(steps).run(WEIGHTINGS[name])


def row(name: str, walked: Walked) -> list[str]:
    ends = walked.path[-1]
    far = distance(ends)
    cells = [
        f"{t:.2f}" + ("" if gap < NEAR else f" off by {gap:.2f}")
        for t, gap in zip(place(ends).tolist(), far.tolist(), strict=True)
    ]
    return [name, *cells, f"{int((far < NEAR).sum())} of {len(ends)}", str(walked.unsolved or "")]


def notes(ends: dict[str, Tensor]) -> list[str]:
    """Which methods end at an end of the front, and which between."""
    reached = {name: distance(points) < NEAR for name, points in ends.items()}
    every = {name: place(points).abs() for name, points in ends.items() if bool(reached[name].all())}
    between = [name for name, places in every.items() if bool((places < INSIDE).all())]
    at_ends = [name for name, places in every.items() if bool((places >= INSIDE).all())]
    mixed = [name for name in every if name not in between + at_ends]
    off = [f"{name} ({int(found.sum())} there)" for name, found in reached.items() if name not in every]
    return [
        f"Each number is t: 0 is the middle of the front, 1 and -1 are its ends. A point is on the"
        f" front where it is nearer than {NEAR}; the last column counts the steps of all paths in which a"
        " method found no weights and gave none.",
        "",
        f"- At an end (|t| >= {INSIDE}) from every start ({len(at_ends)}): {', '.join(at_ends)}.",
        f"- Between the ends from every start ({len(between)}): {', '.join(between)}.",
        f"- One or the other ({len(mixed)}): {', '.join(mixed) or '-'}.",
        f"- Not on the front from some start ({len(off)}): {', '.join(off) or '-'}.",
    ]


def picture(paths: dict[str, Tensor]) -> None:
    front = losses(torch.linspace(-1, 1, 101)[:, None] * CENTRE * torch.ones(SIZE))

    def draw(panel: Axes, name: str) -> None:
        panel.plot(*front.mT, color="0.6", linewidth=3)
        trace(panel, losses(paths[name]), every=5)

    caption = (
        "First loss across, second loss up: from the starts (dots) to the ends (stars); the front is grey"
    )
    sheet("fonseca", list(paths), draw, caption)


def main() -> None:
    steps = steps_given(__doc__, 600)
    found = in_processes(functools.partial(run, steps), WEIGHTINGS)
    ends = {name: walked.path[-1] for name, walked in found.items()}
    title = f"Where every weighting ends on Fonseca's problem, after {steps} steps at the most"
    header = ["method", *(f"start {number}" for number in range(1, 6)), "on the front", "no weights"]
    keep("fonseca", title, header, [row(*item) for item in found.items()], notes(ends))
    picture({name: walked.path for name, walked in found.items()})


if __name__ == "__main__":
    main()
