"""An observer of an engine receives the step's gradients, and leaves them as they are."""

import pytest
import torch
from torch import nn

from polytask import UserError
from polytask.gradients import Engine
from polytask.models import MLP, MultiHead
from polytask.weighting import Equal, GradDrop, UPGrad

TASKS = ("a", "b")


def setting(weighting):
    torch.manual_seed(0)
    model = MultiHead(MLP(4, [6], 5), {task: nn.Linear(5, 1) for task in TASKS})
    return model, Engine(model, weighting())


def losses_of(model):
    outputs = model(torch.linspace(-1, 1, 24).view(6, 4))
    return {task: (outputs[task] - place).square().mean() for place, task in enumerate(TASKS)}


def seen_by(weighting, level="parameters", **options):
    model, engine = setting(weighting)
    found = []
    observer = engine.observe(level, found.append)
    observer.due = True
    engine.backward(losses_of(model), **options)
    (seen,) = found
    return model, seen


def rows_by_hand(model, parameters):
    losses = losses_of(model)
    return [torch.autograd.grad(losses[task], parameters, retain_graph=True) for task in TASKS]


@pytest.mark.parametrize("scale", [1.0, 1024.0])
@pytest.mark.parametrize("weighting", [Equal, UPGrad, GradDrop])
def test_a_loss_scale_is_not_seen(weighting, scale):
    model, seen = seen_by(weighting, scale=scale)
    parameters = list(model.backbone.parameters())
    rows = rows_by_hand(model, parameters)
    flat = torch.stack([torch.cat([part.flatten() for part in row]) for row in rows])
    torch.testing.assert_close(seen.gramian, flat @ flat.mT)
    own = dict(seen.gradient("b"))
    for parameter, expected in zip(parameters, rows[1], strict=True):
        torch.testing.assert_close(own[parameter], expected)
    layer = list(model.backbone.parameters())[-2:]
    top = torch.stack([torch.cat([part.flatten() for part in row[-2:]]) for row in rows])
    torch.testing.assert_close(seen.gramian_of(layer), top @ top.mT)


@pytest.mark.parametrize("weighting", [Equal, UPGrad])
@pytest.mark.parametrize("level", ["parameters", "representation"])
def test_the_update_is_the_same(weighting, level):
    observed, _ = seen_by(weighting, level)
    alone, engine = setting(weighting)
    engine.backward(losses_of(alone))
    for one, other in zip(observed.parameters(), alone.parameters(), strict=True):
        assert torch.equal(one.grad, other.grad)


def test_an_observer_receives_what_it_asks_for():
    model, engine = setting(Equal)
    found = []
    observer = engine.observe("representation", found.append)
    engine.backward(losses_of(model))
    assert found == []
    observer.due = True
    engine.backward(losses_of(model))
    engine.remove_observer(observer)
    engine.backward(losses_of(model))
    assert len(found) == 1
    assert found[0].names == TASKS


def test_one_tensor_of_losses_has_no_representation():
    model, engine = setting(Equal)
    engine.weighting.setup(TASKS)
    engine.observe("representation", lambda seen: None).due = True
    together = torch.cat(list(model(torch.ones(3, 4)).values()), dim=1).square().mean(0)
    with pytest.raises(UserError, match="its own graph for each task"):
        engine.backward(together)


def test_sizes_are_of_what_is_shared_and_what_is_not():
    model, engine = setting(UPGrad)
    engine.backward(losses_of(model))
    assert engine.sizes() == (sum(p.numel() for p in model.backbone.parameters()), {"a": 6, "b": 6})
