"""Layers without rows: half precision, copies of a model, batches of unequal shape."""

import copy
import pickle

import pytest
import torch
from torch import Tensor, nn

from polytask.gradients import Engine
from polytask.gradients._layer_observer import CALLS
from polytask.models import MultiHead
from polytask.weighting import GramianSolution, GramianWeighting
from tests.reference import test_engine


class Kept(GramianWeighting):
    def solve(self, step):
        self.gramian = step.gramian
        return GramianSolution(torch.ones(len(step.gramian), dtype=torch.float64))


class Words(nn.Module):
    def __init__(self, count: int) -> None:
        super().__init__()
        self.table = nn.Embedding(count, 8)

    def forward(self, x: Tensor) -> Tensor:
        return self.table(x).sum(1)


def images() -> nn.Module:
    return nn.Sequential(nn.Conv2d(16, 8, 3, padding=1), nn.ReLU(inplace=True), nn.Flatten())


def build(backbone: nn.Module, width: int) -> MultiHead:
    torch.manual_seed(0)
    for parameter in backbone.parameters():
        nn.init.normal_(parameter, std=0.3)
    return MultiHead(backbone, {task: nn.Linear(width, 1) for task in ("a", "b")})


def losses_of(outputs: dict[str, Tensor]) -> dict[str, Tensor]:
    return {task: (output - i).float().square().mean() for i, (task, output) in enumerate(outputs.items())}


def taken(engine: Engine) -> list[type]:
    found: list[type] = []
    calls, take = engine._level.layers, engine._level.layers.take

    def noting(*args):
        result = take(*args)
        found.extend(type(call.layer) for call in result)
        return result

    calls.take = noting
    return found


@pytest.mark.parametrize("kind", ["images", "words"])
def test_bfloat16_autocast(kind: str) -> None:
    x = torch.randn(1, 16, 2, 2) if kind == "images" else torch.randint(90, (4, 6))
    make = (lambda: build(images(), 32)) if kind == "images" else (lambda: build(Words(90), 8))
    exact, rounded = Kept(), Kept()
    model, twin = make(), make()
    engine = Engine(model, rounded)
    found = taken(engine)
    with torch.autocast("cpu", torch.bfloat16):
        losses = losses_of(model(x))
    engine.backward(losses)
    Engine(twin, exact).backward(losses_of(twin(x)))
    assert found == [nn.Conv2d if kind == "images" else nn.Embedding]
    assert torch.allclose(rounded.gramian, exact.gramian, rtol=0.1, atol=0.02 * exact.gramian.max().item())
    for parameter, other in zip(model.parameters(), twin.parameters(), strict=True):
        assert parameter.grad.dtype == torch.float32
        assert torch.allclose(parameter.grad, other.grad, rtol=0.1, atol=0.1)


@pytest.mark.parametrize("clone", [copy.deepcopy, lambda model: pickle.loads(pickle.dumps(model))])
def test_a_copy_of_a_watched_model_can_be_trained(clone) -> None:
    model, x = build(images(), 32), torch.randn(4, 16, 2, 2)
    engine = Engine(model, Kept())
    other = clone(model)
    again = Engine(other, Kept())
    for each, net in ((engine, model), (again, other)):
        each.backward(losses_of(net(x)))
    for first, second in zip(model.parameters(), other.parameters(), strict=True):
        assert torch.allclose(first.grad, second.grad)


def test_choices_follow_the_batch() -> None:
    """A large batch takes explicit rows, a small one none, within one run."""
    model = build(images(), 32)
    weighting = Kept()
    engine = Engine(model, weighting)
    found = taken(engine)
    counts = []
    for rows in (2, 90, 2):
        found.clear()
        engine.backward(losses_of(model(torch.randn(rows, 16, 2, 2))))
        counts.append(len(found))
        model.zero_grad()
    assert counts == [1, 0, 1]


def test_the_same_word_in_all_places() -> None:
    model, x = build(Words(90), 8).double(), torch.full((3, 4), 5)
    weighting = Kept()
    engine = Engine(model, weighting)
    engine.backward(losses_of(model(x)))
    gradient = model.backbone.table.weight.grad
    assert gradient[5].abs().sum() > 0
    assert gradient.abs().sum() == gradient[5].abs().sum()
    losses = losses_of(model(x))
    rows = [
        torch.autograd.grad(loss, model.backbone.table.weight, retain_graph=True)[0]
        for loss in losses.values()
    ]
    jacobian = torch.stack([row.flatten() for row in rows])
    assert torch.allclose(weighting.gramian, jacobian @ jacobian.mT)


def test_a_subclass_is_not_watched() -> None:
    class Doubled(nn.Conv2d):
        def forward(self, x: Tensor) -> Tensor:
            return 2 * super().forward(x)

    assert Doubled not in CALLS
    model = build(nn.Sequential(Doubled(16, 8, 2), nn.Flatten()), 8)
    engine = Engine(model, Kept())
    found = taken(engine)
    engine.backward(losses_of(model(torch.randn(3, 16, 2, 2))))
    assert found == []


@pytest.mark.parametrize("change", ["forward", "hook"])
def test_a_layer_that_computes_something_else_is_not_taken(change: str) -> None:
    """A forward of the layer's own on another input, or a hook that turns the output around."""
    layer = nn.Linear(256, 16)
    if change == "forward":
        layer.forward = lambda x: nn.functional.linear(x.relu(), layer.weight, layer.bias)
    else:
        layer.register_forward_hook(lambda module, args, output: output.t())
    model, x = build(layer, 16), torch.randn(16, 256)
    weighting = Kept()
    engine = Engine(model, weighting)
    losses = losses_of(model(x))
    rows = [
        torch.autograd.grad(loss, list(layer.parameters()), retain_graph=True) for loss in losses.values()
    ]
    jacobian = torch.stack([torch.cat([part.flatten() for part in row]) for row in rows])
    engine.backward(losses)
    assert torch.allclose(weighting.gramian, (jacobian @ jacobian.mT).double(), rtol=1e-4)
    assert torch.allclose(layer.weight.grad.flatten(), jacobian.sum(0)[: 256 * 16], rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("level", ["parameters", "representation"])
@pytest.mark.parametrize("clone", [copy.deepcopy, lambda model: pickle.loads(pickle.dumps(model))])
def test_a_model_can_be_copied_between_forward_and_backward(clone, level) -> None:
    model, x = build(nn.Linear(64, 8), 8), torch.randn(4, 64)
    engine = Engine(model, Kept(), level)
    losses = losses_of(model(x))
    other = clone(model)
    engine.backward(losses)
    again = Engine(other, Kept(), level)
    again.backward(losses_of(other(x)))
    for first, second in zip(model.parameters(), other.parameters(), strict=True):
        assert torch.allclose(first.grad, second.grad)


def test_layers_without_rows_are_used_where_they_save_work() -> None:
    """Otherwise the reference would compare explicit rows with explicit rows."""
    without = {}
    for kind in test_engine.BACKBONES:
        model, x = test_engine.build(kind)
        engine = Engine(model, Kept())
        losses = test_engine.losses_of(model(x))
        found = taken(engine)
        engine.backward(losses)
        without[kind] = len(found)
    assert (
        without["mlp"] == without["in-place relu"] == without["in-place dropout"] == without["no bias"] == 2
    )
    assert without["tokens"] == without["checkpointed"] == without["batch norm"] == 2
    assert without["many rows"] == without["tied"] == without["lstm"] == without["one vector"] == 0
    assert without["reused"] == without["functional use"] == without["scaled by a hook"] == 1
    assert without["frozen weight"] == without["parametrized"] == 1
    assert without["conv 1d"] == without["conv 2d"] == without["conv 3d"] == 2
    assert without["grouped conv"] == without["circular conv"] == 2
    assert without["conv"] == without["residual conv"] == without["reused conv"] == 1
    assert without["conv of one image"] == 0
    assert without["large embedding"] == without["padded embedding"] == 2
    assert without["embedding of no gradient"] == without["a function of its own"] == 2
    assert without["sparse embedding"] == 2
    assert without["embedding"] == without["normed embedding"] == 1
    assert without["embedding by frequency"] == without["shared table"] == 1
    assert without["looked up twice"] == 0
