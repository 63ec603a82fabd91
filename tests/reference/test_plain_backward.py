"""The engine with weights of 1 does what the backward of the summed losses does, on each of its ways."""

import copy
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from polytask.gradients import Engine
from polytask.models import MultiHead
from polytask.weighting import Equal, GramianSolution, GramianWeighting, JacobianAggregator

TASKS = ("a", "b")


class Ones(GramianWeighting):
    """Weights of 1."""

    def solve(self, step):
        return GramianSolution(torch.ones(len(step.gramian)))


class Sum(JacobianAggregator):
    """The sum of the rows."""

    def aggregate(self, jacobian, indices, losses):
        return jacobian.sum(0)


class Body(nn.Module):
    """Tables in front of a layer of which the Gramian needs no rows if the batch is small."""

    def __init__(self, sparse: bool = False) -> None:
        super().__init__()
        self.table = nn.Embedding(40, 24, sparse=sparse, padding_idx=3)
        self.bag = nn.EmbeddingBag(40, 24, sparse=sparse, mode="sum")
        self.wide = nn.Linear(24, 12)
        self.spare = nn.Linear(24, 12)
        self.use_spare = True

    def forward(self, x: Tensor) -> Tensor:
        given = self.table(x).mean(1) + self.bag(x)
        h = self.wide(given).tanh()
        return h + self.spare(given) if self.use_spare else h


# How an engine is made, and how many steps there are before the one that is looked at.
WAYS: dict[str, tuple[Callable[[nn.Module], Engine], int]] = {
    "losses": (lambda model: Engine(model, Equal()), 0),
    "parameters": (lambda model: Engine(model, Ones()), 0),
    "representation": (lambda model: Engine(model, Ones(), level="representation"), 0),
    "last_shared": (lambda model: Engine(model, Ones(), level="last_shared"), 0),
    "kept weights": (lambda model: Engine(model, Ones(), refresh_every=2), 1),
    "scaled heads": (lambda model: Engine(model, Ones(), scale_heads=True, refresh_every=2), 1),
    "aggregator": (lambda model: Engine(model, Sum()), 0),
    "two calls": (lambda model: Engine(model, Ones()), 0),
}
ways = pytest.mark.parametrize("way", WAYS)
sizes = pytest.mark.parametrize("rows", [4, 64])


def pair(sparse: bool = False) -> tuple[nn.Module, nn.Module]:
    torch.manual_seed(0)
    model = MultiHead(Body(sparse), {task: nn.Linear(12, 1) for task in TASKS}).double()
    return model, copy.deepcopy(model)


def inputs(rows: int, seed: int = 1) -> Tensor:
    return torch.randint(0, 30, (rows, 3), generator=torch.Generator().manual_seed(seed))


def losses_of(model: nn.Module, x: Tensor) -> dict[str, Tensor]:
    return {task: (output - i).square().mean() for i, (task, output) in enumerate(model(x).items())}


def backwards(way: str, model: nn.Module, plain: nn.Module, rows: int) -> None:
    """The same steps with both; the last one leaves its gradients."""
    make, before = WAYS[way]
    engine = make(model)
    for step in range(before + 1):
        x = inputs(rows, step)
        model.zero_grad()
        plain.zero_grad()
        if way == "two calls":
            engine.backward(losses_of(model, x[::2]), last=False)
            sum(losses_of(plain, x[::2]).values()).backward()
            x = x[1::2]
        engine.backward(losses_of(model, x))
        sum(losses_of(plain, x).values()).backward()


def assert_same_gradients(model: nn.Module, plain: nn.Module) -> None:
    for (name, ours), theirs in zip(model.named_parameters(), plain.parameters(), strict=True):
        assert (ours.grad is None) == (theirs.grad is None), name
        if theirs.grad is not None:
            assert ours.grad.layout == theirs.grad.layout, name
            torch.testing.assert_close(ours.grad.to_dense(), theirs.grad.to_dense(), msg=name)


def hold(model: nn.Module) -> list[str]:
    """Hooks that keep half of the table, of a layer and of a head unchanged; the names of those called."""
    calls: list[str] = []

    def register(name: str, parameter: Tensor) -> None:
        mask = torch.ones_like(parameter)
        mask[len(mask) // 2 :] = 0

        def masked(gradient: Tensor) -> Tensor:
            calls.append(name)
            return gradient.to_dense() * mask

        parameter.register_hook(masked)

    for name in (
        "backbone.table.weight",
        "backbone.wide.weight",
        "backbone.wide.bias",
        "backbone.bag.weight",
    ):
        register(name, model.get_parameter(name))
    register("head", next(model.heads["a"].parameters()))
    return calls


@sizes
@ways
def test_hooks_on_parameters_change_their_gradients(way: str, rows: int) -> None:
    model, plain = pair()
    calls, expected = hold(model), hold(plain)
    backwards(way, model, plain, rows)
    assert set(calls) == set(expected)
    assert_same_gradients(model, plain)


@sizes
@ways
def test_backward_hooks_of_layers_are_called(way: str, rows: int) -> None:
    model, plain = pair()
    calls: list[nn.Module] = []

    def double(module: nn.Module, given: tuple[Tensor, ...], got: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        calls.append(module)
        return tuple(2 * gradient for gradient in given)

    for net in (model, plain):
        net.backbone.wide.register_full_backward_hook(double)
    backwards(way, model, plain, rows)
    assert set(calls) == {model.backbone.wide, plain.backbone.wide}
    assert_same_gradients(model, plain)


@sizes
@ways
def test_hooks_after_the_accumulation_are_called_once_with_the_whole_gradient(way: str, rows: int) -> None:
    model, plain = pair()
    seen: dict[str, list[Tensor]] = {}
    for name, parameter in model.named_parameters():
        parameter.register_post_accumulate_grad_hook(
            lambda leaf, name=name: seen.setdefault(name, []).append(leaf.grad.clone())
        )
    backwards(way, model, plain, rows)
    assert {name: len(calls) for name, calls in seen.items()} == dict.fromkeys(
        dict(plain.named_parameters()), WAYS[way][1] + 1
    )
    for name, parameter in plain.named_parameters():
        torch.testing.assert_close(seen[name][-1], parameter.grad)


def test_an_optimizer_in_the_hooks_takes_the_steps_of_one_after_the_backward() -> None:
    model, plain = pair()
    optimizers = {parameter: torch.optim.Adam([parameter], lr=0.01) for parameter in model.parameters()}

    def step_now(leaf: Tensor) -> None:
        optimizers[leaf].step()
        optimizers[leaf].zero_grad()

    for parameter in model.parameters():
        parameter.register_post_accumulate_grad_hook(step_now)
    engine, usual = Engine(model, Ones()), torch.optim.Adam(plain.parameters(), lr=0.01)
    for step in range(3):
        engine.backward(losses_of(model, inputs(4, step)))
        usual.zero_grad()
        sum(losses_of(plain, inputs(4, step)).values()).backward()
        usual.step()
    for ours, theirs in zip(model.parameters(), plain.parameters(), strict=True):
        assert ours.grad is None
        torch.testing.assert_close(ours, theirs)


@sizes
@ways
def test_sparse_gradients_stay_sparse_and_add_up(way: str, rows: int) -> None:
    model, plain = pair(sparse=True)
    backwards(way, model, plain, rows)
    assert_same_gradients(model, plain)
    assert model.backbone.table.weight.grad.is_sparse
    assert model.backbone.bag.weight.grad.is_sparse
    expected = plain.backbone.table.weight.grad.coalesce().indices()
    assert torch.equal(model.backbone.table.weight.grad.coalesce().indices(), expected)


@ways
def test_sparse_adam_takes_the_same_steps(way: str) -> None:
    model, plain = pair(sparse=True)
    engine = WAYS[way][0](model)
    optimizers = [torch.optim.SparseAdam([net.backbone.table.weight], lr=0.1) for net in (model, plain)]
    for step in range(4):
        for net, optimizer in zip((model, plain), optimizers, strict=True):
            net.zero_grad()
            losses = losses_of(net, inputs(4, step))
            if net is model:
                engine.backward(losses)
            else:
                sum(losses.values()).backward()
            optimizer.step()
    torch.testing.assert_close(model.backbone.table.weight, plain.backbone.table.weight)


@ways
@pytest.mark.parametrize("how", ["unused", "frozen"])
def test_a_shared_layer_without_a_gradient_gets_none(way: str, how: str) -> None:
    model, plain = pair()
    engine = WAYS[way][0](model)
    engine.backward(losses_of(model, inputs(4)))
    for net in (model, plain):
        net.zero_grad()
        if how == "unused":
            net.backbone.use_spare = False
        else:
            net.backbone.spare.requires_grad_(False)
    for _ in range(2 if WAYS[way][1] else 1):
        model.zero_grad()
        engine.backward(losses_of(model, inputs(4)))
    sum(losses_of(plain, inputs(4)).values()).backward()
    assert model.backbone.spare.weight.grad is None
    assert_same_gradients(model, plain)


@ways
def test_shared_layers_may_be_unfrozen_later(way: str) -> None:
    model, plain = pair()
    for net in (model, plain):
        net.backbone.requires_grad_(False)
    engine = WAYS[way][0](model)
    for step in range(2):
        model.zero_grad()
        engine.backward(losses_of(model, inputs(4, step)))
        assert all(parameter.grad is None for parameter in model.backbone.parameters())
    for net in (model, plain):
        net.zero_grad()
        net.backbone.requires_grad_(True)
    engine.backward(losses_of(model, inputs(4)))
    sum(losses_of(plain, inputs(4)).values()).backward()
    assert_same_gradients(model, plain)
    # What was found to be shared is weighed: other weights would change the update.
    assert way == "losses" or engine.sizes()[0] == sum(p.numel() for p in model.backbone.parameters())


JOINED: dict[str, Callable[[list[Tensor]], list[Tensor]]] = {
    "index": lambda losses: [torch.stack(losses)[0], torch.stack(losses)[1]],
    "negative index": lambda losses: [torch.stack(losses)[-2], torch.stack(losses)[-1]],
    "one vector": lambda losses: list((2 * torch.stack(losses) / 2).unbind()),
    "last dimension": lambda losses: list(torch.stack(losses, dim=-1).unbind(-1)),
    "slices": lambda losses: [torch.stack(losses)[:1].squeeze(), torch.stack(losses)[-1:].squeeze(0)],
    "slice and index": lambda losses: [torch.stack(losses)[0:][0], torch.stack(losses)[1:][0]],
    "split": lambda losses: [part.sum() for part in torch.stack(losses).split(1)],
    "cat": lambda losses: list(torch.cat([loss.reshape(1) for loss in losses]).unbind()),
    "tensor index": lambda losses: list(torch.stack(losses)[torch.tensor([1, 0])].flip(0).unbind()),
    "gather": lambda losses: [torch.stack(losses).gather(0, torch.tensor([i]))[0] for i in (0, 1)],
    "vector of vectors": lambda losses: list(torch.stack(list(torch.stack(losses)[-2:].unbind())).unbind()),
    "functions of elements": lambda losses: list((torch.stack(losses) + 1).log().exp().sub(1).unbind()),
}


@pytest.mark.parametrize("how", JOINED)
def test_losses_may_be_taken_from_a_vector_in_any_way(how: str) -> None:
    models = pair()
    engines = [Engine(model, Ones(), scale_heads=False) for model in models]
    for model, engine, join in zip(models, engines, (JOINED[how], list), strict=True):
        a, b = join(list(losses_of(model, inputs(4)).values()))
        engine.backward({"a": a, "b": b})
    assert_same_gradients(*models)
    assert engines[0].sizes() == engines[1].sizes()
