"""The toy problems of ``benchmarks``: known answers, and tables from a few steps."""

import dataclasses
import importlib
import inspect
import math
import sys
from pathlib import Path

import pytest
import torch
from torch import nn

from polytask import weighting as weightings
from polytask.gradients import Engine
from tests.cases import WEIGHTINGS

FOLDER = Path(__file__).parents[2] / "benchmarks"
sys.path.append(str(FOLDER))
toys, training, landscape, fonseca, kendall, gradnorm_toy = (
    importlib.import_module(name)
    for name in ("_toys", "_training", "landscape", "fonseca", "kendall", "gradnorm_toy")
)
FEW = ("Equal", "MoCo")
ALL = toys.all_weightings({"task0": 3.0, "task1": 1.0})


def one_start(walk, number, steps):
    return dataclasses.replace(walk, starts=walk.starts[number : number + 1], steps=steps)


class Point(nn.Module):
    def __init__(self, start):
        super().__init__()
        self.point = nn.Parameter(start.clone())

    def forward(self):
        first, second = landscape.losses(self.point)
        return {"task0": first, "task1": second}


def test_no_weighting_is_left_out():
    methods = {case.method for case in WEIGHTINGS}
    adapters = {
        name for name in methods if "method" in inspect.signature(getattr(weightings, name)).parameters
    }
    assert set(ALL) == methods - adapters


@pytest.mark.parametrize("name", ALL)
def test_a_bare_weighting_walks_as_the_engine_does(name):
    walk = one_start(landscape.walk(3), 3, 3)
    torch.manual_seed(0)
    weighting, model = ALL[name](), Point(walk.starts[0])
    weighting.setup(["task0", "task1"])
    engine = Engine(model, weighting)
    # The hooks are called here.
    engine.own_loop = None
    optimizer = torch.optim.Adam([*model.parameters(), *weighting.parameters()], lr=walk.lr, betas=walk.betas)
    path = [walk.starts[0]]
    for _ in range(3):
        optimizer.zero_grad()
        for _ in range(weighting.batches_per_step):
            losses = model()
            engine.backward(losses)
        optimizer.step()
        path.append(model.point.detach().clone())
        after = model() if weighting.remeasures else losses
        weighting.after_step(torch.stack(list(after.values())).detach())
    torch.testing.assert_close(walk.run(ALL[name]).path[:, 0], torch.stack(path), rtol=1e-4, atol=1e-5)


def test_gradients_are_opposed_on_the_front_of_the_landscape():
    x = torch.linspace(-6.9, 6.9, 9, dtype=torch.float64)
    points = torch.stack([x, landscape.front(x)], -1).requires_grad_()
    first, second = (
        torch.autograd.grad(task.sum(), points, retain_graph=True)[0]
        for task in landscape.losses(points).unbind(-1)
    )
    cosines = nn.functional.cosine_similarity(first, second)
    torch.testing.assert_close(cosines, -torch.ones_like(x), rtol=0, atol=1e-10)
    assert landscape.front(torch.tensor(0.0)).item() == pytest.approx(-8.3552, abs=1e-3)


def test_losses_of_the_landscape_are_positive_and_known():
    grid = torch.cartesian_prod(torch.linspace(-10, 10, 201), torch.linspace(-10, 10, 201))
    assert (landscape.losses(grid) > 0).all()
    # tanh(0) takes all but the shift away.
    torch.testing.assert_close(landscape.losses(torch.zeros(2)), torch.tensor([2.0, 20.0]))


def test_distances_are_to_the_nearest_point_of_the_front():
    middle = landscape.front(torch.tensor(0.0)).item()
    points = torch.tensor([[0.0, middle + 2.0], [10.0, landscape.front(torch.tensor(7.0)).item() - 4.0]])
    torch.testing.assert_close(landscape.distance(points), torch.tensor([2.0, 5.0]))
    ends = torch.stack([torch.full((20,), fonseca.CENTRE), torch.full((20,), -2 * fonseca.CENTRE)])
    torch.testing.assert_close(fonseca.distance(ends), torch.tensor([0.0, 1.0]))


def test_the_right_weights_reach_the_middle_of_the_front():
    walk = dataclasses.replace(landscape.walk(1000), starts=torch.tensor([[1.0, -8.0]]))
    found = walk.run(landscape.WEIGHTINGS["Fixed"])
    torch.testing.assert_close(found.path[-1], torch.tensor([[0.0, -8.3552]]), rtol=0, atol=0.05)
    # It has stayed there for two epochs and stopped.
    assert len(found.path) <= 1000


def test_constant_weights_find_the_ends_of_a_concave_front_and_mgda_finds_more():
    walk = one_start(fonseca.walk(400), 1, 400)
    places = {name: fonseca.place(walk.run(ALL[name]).path[-1]).abs().item() for name in ("Equal", "MGDA")}
    assert places["Equal"] > 0.9
    assert places["MGDA"] < 0.5


def test_steps_without_weights_are_counted():
    weighting = weightings.NashMTL()
    weighting.deferred = True
    weighting.setup(["a", "b"])
    for _ in range(3):
        # Opposed gradients: no weights make both tasks better.
        weighting(torch.tensor([[1.0, -1.0], [-1.0, 1.0]]))
    assert toys.unsolved(weighting) == 3


def test_noise_is_learned_from_what_is_left():
    torch.manual_seed(0)
    problem = kendall.Problem(weightings.UW, 0)
    start = problem.residuals()
    problem.run(60)
    left, noise = problem.residuals(), problem.training.weighting.get_uncertainties()
    assert (left < start).all()
    # What a network of this size leaves is what the notebook's learned noise ends at.
    assert left.tolist() == pytest.approx(kendall.NOTEBOOK, rel=0.15)
    # Adam has gone 60 steps of 1e-3 up from a log variance of 0.
    assert noise["noisy"] == pytest.approx(math.exp(0.03), rel=0.01)


def test_targets_of_the_toy_regression_differ_in_scale():
    torch.manual_seed(0)
    problem = gradnorm_toy.Problem(weightings.Equal, (1, 100))
    _, targets = problem.batch(200)
    sizes = torch.stack([target.square().mean().sqrt() for target in targets.values()])
    assert (sizes[1] / sizes[0]).item() == pytest.approx(100, rel=0.05)
    # 1 / w balances the pulls of two tasks whose gradients have those lengths.
    even = problem.imbalance(torch.ones(2))
    assert even > 10
    assert problem.imbalance(torch.tensor([even, 1.0])) == pytest.approx(1, rel=1e-3)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("module", "arguments", "columns", "said"),
    [
        (landscape, ["--steps", "3"], 8, "the plain sum does not reach the front"),
        (fonseca, ["--steps", "3"], 8, "Between the ends"),
        (kendall, ["--steps", "20", "--epochs", "1"], 4, "the notebook has 8.59 and 0.92"),
        (gradnorm_toy, ["--steps", "15"], 7, "GradNorm has a lower mean"),
    ],
)
def test_a_run_keeps_a_table_and_a_picture(module, arguments, columns, said, tmp_path, monkeypatch):
    table, sheet = (importlib.import_module(name) for name in ("_table", "_sheet"))
    for place in (table, sheet, toys):
        monkeypatch.setattr(place, "RESULTS", tmp_path)
    monkeypatch.setattr(
        module,
        "all_weightings",
        lambda given: {name: make for name, make in toys.all_weightings(given).items() if name in FEW},
    )
    monkeypatch.setattr(
        module,
        "in_processes",
        lambda run, names: {name: run(name) for name in names if name in FEW or not name.isalpha()},
    )
    name = module.__name__
    monkeypatch.setattr(sys, "argv", [f"{name}.py", *arguments])
    module.main()
    text = (tmp_path / f"{name}.md").read_text()
    rows = [line for line in text.splitlines() if line.startswith("| Equal")]
    assert [row.count(" | ") + 1 for row in rows] == [columns]
    assert said in text
    assert f"]({name}.png)" in text
    assert (tmp_path / f"{name}.png").stat().st_size < 150_000
