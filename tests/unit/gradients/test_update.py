"""Each line of the table in `choose`, and what the engine does in it."""

import pytest
import torch
from torch import nn

from polytask.gradients import Engine
from polytask.gradients._update import Situation, Update, choose
from polytask.models import MLP, MultiHead
from polytask.weighting import GramianSolution, GramianWeighting

EITHER = (False, True)


@pytest.mark.parametrize(
    ("shared", "kept", "calls", "update"),
    [
        ([False], EITHER, ["only"], Update.SUM_OF_LOSSES),
        ([True], [True], ["only"], Update.KEPT_WEIGHTS),
        (EITHER, [True], ["first", "between", "last"], Update.KEPT_WEIGHTS),
        ([True], [False], ["only"], Update.SINGLE_BATCH),
        (EITHER, [False], ["first", "between"], Update.ADD_TO_WINDOW),
        (EITHER, [False], ["last"], Update.CLOSE_WINDOW),
    ],
)
def test_each_line_of_the_table(shared, kept, calls, update):
    flags = {"only": (True, True), "first": (True, False), "between": (False, False), "last": (False, True)}
    chosen = {choose(Situation(one, two, *flags[call])) for one in shared for two in kept for call in calls}
    assert chosen == {update}


class Double(GramianWeighting):
    """Weights of 2, and how often they were computed."""

    calls = 0

    def solve(self, step):
        self.calls += 1
        return GramianSolution(torch.full_like(step.gramian.diagonal(), 2.0))


def setting(**options):
    torch.manual_seed(0)
    model = MultiHead(MLP(3, [4], 2), {task: nn.Linear(2, 1) for task in "ab"})
    weighting = Double()
    weighting.setup("ab")
    return model, weighting, Engine(model, weighting, **options)


def backward(model, engine, tasks="ab", **options):
    outputs = model(torch.linspace(-1, 1, 15).view(5, 3))
    engine.backward({task: outputs[task].square().mean() for task in tasks}, **options)


def factor(model):
    """How often the sum of the losses' gradients of the backbone is in ``.grad``."""
    outputs = model(torch.linspace(-1, 1, 15).view(5, 3))
    total = sum(output.square().mean() for output in outputs.values())
    weight = model.backbone.layers.linear1.weight
    if weight.grad is None:
        return 0.0
    (expected,) = torch.autograd.grad(total, weight)
    found = round((weight.grad.norm() / expected.norm()).item(), 4)
    torch.testing.assert_close(weight.grad, found * expected)
    return found


def test_a_step_in_which_nothing_is_known_to_be_shared_takes_the_sum():
    model, weighting, engine = setting()
    backward(model, engine, tasks="a")
    assert model.backbone.layers.linear1.weight.grad is not None
    assert weighting.calls == 0


def test_a_single_batch_is_measured():
    model, weighting, engine = setting()
    backward(model, engine)
    assert (factor(model), weighting.calls) == (2.0, 1)


def test_kept_weights_are_not_computed_again():
    model, weighting, engine = setting(refresh_every=2)
    backward(model, engine)
    model.zero_grad()
    backward(model, engine)
    assert (factor(model), weighting.calls) == (2.0, 1)


def test_kept_weights_of_a_step_of_several_calls_give_its_mean():
    model, weighting, engine = setting(refresh_every=2)
    backward(model, engine)
    model.zero_grad()
    backward(model, engine, last=False, calls=2)
    assert (factor(model), weighting.calls) == (1.0, 1)
    backward(model, engine, last=True, calls=2)
    assert (factor(model), weighting.calls) == (2.0, 1)


def test_a_window_is_filled_and_closed():
    model, weighting, engine = setting()
    backward(model, engine, last=False, calls=2)
    assert (factor(model), weighting.calls, engine.begun) == (0.0, 0, True)
    backward(model, engine, last=True, calls=2)
    assert (factor(model), weighting.calls, engine.begun) == (4.0, 1, False)
