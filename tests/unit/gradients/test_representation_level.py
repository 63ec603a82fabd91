"""The representation level: what it measures, and the models it refuses."""

import pytest
import torch
from torch import Tensor, nn

from polytask import UserError
from polytask.gradients import Engine
from polytask.models import MLP, MultiHead
from polytask.weighting import GramianSolution, GramianWeighting, UPGrad

TASKS = ("a", "b")


class Kept(GramianWeighting):
    def solve(self, step):
        self.gramian = step.gramian
        return GramianSolution(torch.tensor([2.0, 3.0], dtype=torch.float64))


class Pair(nn.Module):
    """A representation of two tensors, the second for the first task alone."""

    def __init__(self) -> None:
        super().__init__()
        self.fine, self.coarse = nn.Linear(4, 6), nn.Linear(4, 3)

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        return {"fine": self.fine(x), "coarse": self.coarse(x)}


class PairHead(nn.Module):
    def __init__(self, keys: tuple[str, ...]) -> None:
        super().__init__()
        self.keys, self.parts = keys, nn.ModuleDict({"fine": nn.Linear(6, 1), "coarse": nn.Linear(3, 1)})

    def forward(self, h: dict[str, Tensor]) -> Tensor:
        return sum(self.parts[key](h[key]) for key in self.keys)


def losses_of(outputs: dict[str, Tensor]) -> dict[str, Tensor]:
    return {task: (outputs[task] - i).square().mean() for i, task in enumerate(TASKS)}


def test_the_gramian_is_that_of_the_representation() -> None:
    torch.manual_seed(0)
    heads = {"a": PairHead(("fine", "coarse")), "b": PairHead(("fine",))}
    model = MultiHead(Pair(), heads).double()
    x, weighting = torch.randn(5, 4).double(), Kept()
    engine = Engine(model, weighting, "representation")
    engine.backward(losses_of(model(x)))
    h = {key: value.detach().requires_grad_() for key, value in model.represent(x).items()}
    losses = losses_of({task: head(h) for task, head in heads.items()})
    rows = []
    for loss in losses.values():
        row = torch.autograd.grad(loss, list(h.values()), retain_graph=True, materialize_grads=True)
        rows.append(torch.cat([part.flatten() for part in row]))
    rows = torch.stack(rows)
    assert torch.allclose(weighting.gramian, rows @ rows.mT, rtol=1e-12)
    found = {name: p.grad.clone() for name, p in model.backbone.named_parameters()}
    model.zero_grad()
    losses = losses_of(model(x))
    (2 * losses["a"] + 3 * losses["b"]).backward()
    assert all(torch.allclose(found[name], p.grad) for name, p in model.backbone.named_parameters())


def test_the_heads_are_passed_once() -> None:
    model = MultiHead(MLP(4, [8], 8), {task: nn.Linear(8, 1) for task in TASKS})
    engine, passed = Engine(model, UPGrad(), "representation"), []
    outputs = model(torch.randn(5, 4))
    for task, output in outputs.items():
        output.grad_fn.register_hook(lambda *_, task=task: passed.append(task))
    engine.backward(losses_of(outputs))
    assert sorted(passed) == ["a", "b"]


class Skipping(nn.Module):
    """The loss of b reaches the backbone past its head."""

    def __init__(self) -> None:
        super().__init__()
        self.backbone = nn.Linear(4, 8)
        self.heads = nn.ModuleDict({task: nn.Linear(8, 1) for task in TASKS})

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        h = self.backbone(x)
        return {"a": self.heads["a"](h), "b": self.heads["b"](h) + self.backbone(x).sum(1, keepdim=True)}


class Crossed(Skipping):
    """The loss of b goes through the head of a."""

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        h = self.backbone(x)
        a = self.heads["a"](h)
        return {"a": a, "b": self.heads["b"](h) + a}


class Unheaded(Skipping):
    """b has no head that is called."""

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        h = self.backbone(x)
        return {"a": self.heads["a"](h), "b": h.mean(1, keepdim=True)}


class Ignoring(Skipping):
    """The head of b is called, and its output thrown away."""

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        h = self.backbone(x)
        self.heads["b"](h)
        return {"a": self.heads["a"](h), "b": h.mean(1, keepdim=True)}


class Apart(Skipping):
    """Each head has a representation of its own."""

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        return {task: head(self.backbone(x)) for task, head in self.heads.items()}


class Scaled(Skipping):
    """Both tasks share a parameter beside the representation."""

    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.ones(()))

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        h = self.backbone(x)
        return {task: self.scale * head(h) for task, head in self.heads.items()}


class OneHead(Skipping):
    def __init__(self) -> None:
        super().__init__()
        self.heads["b"] = self.heads["a"]


@pytest.mark.parametrize(
    ("kind", "message"),
    [
        (Skipping, "through their heads only"),
        (Crossed, "'a': the loss of this task, and no other"),
        (Unheaded, "task 'b'.*no such call"),
        (Ignoring, "task 'b': the loss"),
        (Apart, "one for each head"),
        (Scaled, "a parameter that several tasks reach behind it"),
        (OneHead, "a different head for each task"),
    ],
)
def test_a_model_without_the_split_is_refused(kind: type[nn.Module], message: str) -> None:
    model = kind()
    with pytest.raises(UserError, match=message):
        Engine(model, UPGrad(), "representation").backward(losses_of(model(torch.randn(5, 4))))


def test_a_window_is_refused() -> None:
    model = Skipping()
    with pytest.raises(UserError, match="last: must be True at the level 'representation'"):
        Engine(model, UPGrad(), "representation").backward(losses_of(model(torch.randn(5, 4))), last=False)


def test_a_second_engine_for_a_model_measures_as_the_first() -> None:
    torch.manual_seed(0)
    model = MultiHead(nn.Linear(4, 6), {task: nn.Linear(6, 1) for task in TASKS})
    x, seen = torch.randn(5, 4), []
    for _ in range(2):
        weighting = Kept()
        Engine(model, weighting, "representation").backward(losses_of(model(x)))
        seen.append((weighting.gramian, model.backbone.weight.grad.clone()))
        model.zero_grad()
    assert torch.equal(seen[0][0], seen[1][0])
    assert torch.equal(seen[0][1], seen[1][1])
