"""The last shared layer: which it is, and what is measured there."""

import pytest
import torch
from torch import Tensor, nn

from polytask import UserError
from polytask.gradients import Engine
from polytask.models import MLP, MultiHead
from polytask.weighting import GradNorm, GramianSolution, GramianWeighting


class Kept(GramianWeighting):
    gradients = "last_shared"

    def solve(self, step):
        self.gramian = step.gramian
        return GramianSolution(torch.ones(2, dtype=torch.float64))


class Listed(nn.Module):
    """Layers are called in another order than they are listed in."""

    def __init__(self) -> None:
        super().__init__()
        self.last, self.norm, self.first = nn.Linear(6, 6), nn.LayerNorm(6), nn.Linear(4, 6)

    def forward(self, x: Tensor) -> Tensor:
        return self.norm(self.last(self.first(x).tanh()))


@pytest.mark.parametrize("window", [False, True])
def test_the_gramian_is_that_of_the_layer_called_last(window: bool) -> None:
    torch.manual_seed(0)
    model = MultiHead(Listed(), {"a": nn.Linear(6, 1), "b": nn.Linear(6, 1)}).double()
    x, weighting = torch.randn(8, 4).double(), Kept()
    engine = Engine(model, weighting)
    losses = {task: output.exp().mean() for task, output in model(x).items()}
    layer = list(model.backbone.last.parameters())
    rows = [torch.autograd.grad(loss, layer, retain_graph=True) for loss in losses.values()]
    rows = torch.stack([torch.cat([part.flatten() for part in row]) for row in rows])
    if window:
        halves = [{t: output.exp().mean() / 2 for t, output in model(part).items()} for part in x.chunk(2)]
        engine.backward(halves[0], last=False)
        engine.backward(halves[1])
    else:
        engine.backward(losses)
    assert torch.allclose(weighting.gramian, rows @ rows.mT, rtol=1e-12)
    assert model.backbone.first.weight.grad is not None


def test_without_matrices_it_is_the_last_parameter() -> None:
    model = MultiHead(nn.LayerNorm(4), {"a": nn.Linear(4, 1), "b": nn.Linear(4, 1)})
    engine = Engine(model, GradNorm())
    engine.backward({task: output.exp().mean() for task, output in model(torch.randn(3, 4)).items()})
    assert model.backbone.weight.grad is not None


def test_gradnorm_balances_the_norms_of_this_layer() -> None:
    torch.manual_seed(0)
    model = MultiHead(MLP(4, [16], 16), {"a": nn.Linear(16, 1), "b": nn.Linear(16, 1)})
    engine, x = Engine(model, GradNorm(alpha=0.0, lr=0.02)), torch.randn(32, 4)
    for _ in range(200):
        losses = {task: output.square().mean() for task, output in model(x).items()}
        losses["b"] = 9 * losses["b"]
        norms = [
            torch.autograd.grad(loss, model.backbone.layers.linear2.weight, retain_graph=True)[0].norm()
            for loss in losses.values()
        ]
        engine.backward(losses)
    weighted = [weight * norm for weight, norm in zip(engine.weights.values(), norms, strict=True)]
    assert 0.8 < weighted[0] / weighted[1] < 1.25


class Forked(nn.Module):
    """The layer that is called last is shared by two of three tasks."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.last = nn.Linear(4, 6), nn.Linear(6, 6)
        self.heads = nn.ModuleDict({task: nn.Linear(6, 1) for task in "abc"})

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        early = self.first(x).tanh()
        late = self.last(early).tanh()
        return {task: head(early if task == "c" else late) for task, head in self.heads.items()}


def test_a_task_that_does_not_reach_the_layer_has_no_gradient_there() -> None:
    model, weighting, seen = Forked(), GradNorm(), []
    weighting.register_forward_hook(lambda module, args, result: seen.append(args[0]))
    Engine(model, weighting).backward({t: o.exp().mean() for t, o in model(torch.randn(8, 4)).items()})
    (gramian,) = seen
    assert gramian[2].tolist() == [0, 0, 0]
    assert (gramian.diagonal()[:2] > 0).all()
    assert model.heads["c"].weight.grad.abs().sum() > 0


def test_a_backbone_that_is_frozen_later_is_said() -> None:
    model, x = MultiHead(nn.Linear(4, 6), {"a": nn.Linear(6, 1), "b": nn.Linear(6, 1)}), torch.randn(3, 4)
    engine = Engine(model, GradNorm())
    engine.backward({task: output.exp().mean() for task, output in model(x).items()})
    model.backbone.requires_grad_(False)
    with pytest.raises(UserError, match="requires a shared layer that is trained"):
        engine.backward({task: output.exp().mean() for task, output in model(x).items()})
