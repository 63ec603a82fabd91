"""The engine against the explicit Jacobian, for many kinds of backbone, in float64."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from polytask.gradients import Engine
from polytask.models import MLP, MultiHead
from polytask.weighting import Equal, GramianSolution, GramianWeighting, JacobianAggregator, MoCo, UPGrad
from tests.cases import GRAMIAN_WEIGHTINGS, GramianCase

TASKS = ("a", "b", "c")
SIZE = 24


class Recorder(GramianWeighting):
    """Keeps the Gramian and gives fixed weights."""

    def solve(self, step):
        self.gramian = step.gramian
        return GramianSolution(torch.arange(1.0, len(step.gramian) + 1, dtype=torch.float64))


class Keeper(JacobianAggregator):
    """Keeps the Jacobian and gives the sum of its rows."""

    def aggregate(self, jacobian, columns, losses):
        self.jacobian = jacobian
        return jacobian.sum(0)


class Multi(nn.Module):
    def __init__(self, backbone: nn.Module, width: int = SIZE) -> None:
        super().__init__()
        self.backbone = backbone
        self.heads = nn.ModuleDict({task: nn.Linear(width, 2) for task in TASKS})

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        h = self.backbone(x)
        return {task: head(h) for task, head in self.heads.items()}


class Called(nn.Module):
    """A backbone made of a function and its modules."""

    def __init__(self, function: Callable[[nn.ModuleList, Tensor], Tensor], *modules: nn.Module) -> None:
        super().__init__()
        self.function, self.parts = function, nn.ModuleList(modules)

    def forward(self, x: Tensor) -> Tensor:
        return self.function(self.parts, x)


def linear(**options: bool) -> nn.Linear:
    return nn.Linear(SIZE, SIZE, **options)


def tied() -> nn.Module:
    first, second = linear(), linear()
    second.weight = first.weight
    return nn.Sequential(first, nn.Tanh(), second)


def reused() -> nn.Module:
    layer = linear()
    return nn.Sequential(layer, nn.Tanh(), layer, linear())


def functional() -> nn.Module:
    return Called(lambda parts, x: parts[0](x).tanh() @ parts[0].weight + parts[1](x), linear(), linear())


def scaled_output() -> nn.Module:
    layer = linear()
    layer.register_forward_hook(lambda module, args, output: 3 * output)
    return nn.Sequential(layer, nn.Tanh(), linear())


def parametrized() -> nn.Module:
    return nn.Sequential(nn.utils.parametrizations.weight_norm(linear()), nn.Tanh(), linear())


def changed_input() -> nn.Module:
    def run(parts: nn.ModuleList, x: Tensor) -> Tensor:
        given = parts[0](x)
        once = parts[1](given.detach())
        return once + parts[2](given)

    return Called(run, linear(), linear(), linear())


def frozen() -> nn.Module:
    layer = linear()
    layer.weight.requires_grad_(False)
    return nn.Sequential(linear(), nn.ReLU(), layer)


def checkpointed() -> nn.Module:
    return Called(
        lambda parts, x: checkpoint(parts[0], x, use_reentrant=False),
        nn.Sequential(linear(), nn.ReLU(), linear()),
    )


class Attention(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.attention = nn.MultiheadAttention(SIZE, 2, batch_first=True)
        self.out = linear()

    def forward(self, x: Tensor) -> Tensor:
        return self.out(x + self.attention(x, x, x)[0]).mean(1)


class Recurrent(nn.Module):
    def __init__(self, kind: type[nn.RNNBase]) -> None:
        super().__init__()
        self.net = kind(SIZE, SIZE, batch_first=True)

    def forward(self, x: Tensor) -> Tensor:
        return self.net(x)[0][:, -1]


def residual() -> nn.Module:
    conv = nn.Sequential(nn.Conv2d(2, 2, 3, padding=1), nn.BatchNorm2d(2), nn.ReLU(inplace=True))
    return nn.Sequential(
        Called(lambda parts, x: x + parts[0](x), conv), nn.Flatten(), nn.Linear(2 * 16, SIZE)
    )


def convolution(kind: type[nn.Module], inputs: int, outputs: int, width: int, **options: Any) -> nn.Module:
    """A convolution at so few places that no gradient of its weight pays."""
    return nn.Sequential(
        kind(inputs, outputs, **options), nn.ReLU(inplace=True), nn.Flatten(), linear_of(width)
    )


def linear_of(width: int) -> nn.Linear:
    return nn.Linear(width, SIZE)


def shared_table() -> nn.Module:
    """The embedding's table gives the logits too."""
    return Called(
        lambda p, x: p[1](nn.functional.linear(p[0](x).mean(1), p[0].weight)),
        nn.Embedding(50, SIZE),
        linear_of(50),
    )


def embedding(count: int, **options: Any) -> nn.Module:
    return Called(lambda p, x: p[1](p[0](x).mean(1)), nn.Embedding(count, SIZE, **options), linear())


def twice_looked_up() -> nn.Module:
    return Called(lambda p, x: p[0](x).mean(1) + p[0](x.flip(0)).amax(1), nn.Embedding(50, SIZE))


class Cube(torch.autograd.Function):
    """A function without a rule for vmap, and whose backward refuses one."""

    @staticmethod
    def forward(ctx, x):
        ctx.save_for_backward(x)
        return x**3

    @staticmethod
    def backward(ctx, gradient):
        (x,) = ctx.saved_tensors
        assert not torch._C._functorch.is_batchedtensor(gradient)
        return 3 * x**2 * gradient


def identifiers() -> Tensor:
    return torch.randint(50, (4, 6))


def vectors() -> Tensor:
    return torch.randn(5, SIZE)


def tokens() -> Tensor:
    return torch.randn(3, 4, SIZE)


def images() -> Tensor:
    return torch.randn(3, 2, 4, 4)


BACKBONES: dict[str, tuple[Callable[[], nn.Module], Callable[[], Tensor]]] = {
    "mlp": (lambda: nn.Sequential(linear(), nn.ReLU(), linear(), nn.ReLU()), vectors),
    "no bias": (lambda: nn.Sequential(linear(bias=False), nn.ReLU(), linear(bias=False)), vectors),
    "many rows": (lambda: nn.Sequential(linear(), nn.ReLU(), linear()), lambda: torch.randn(3 * SIZE, SIZE)),
    "in-place relu": (lambda: nn.Sequential(linear(), nn.ReLU(inplace=True), linear()), vectors),
    "in-place dropout": (
        lambda: nn.Sequential(linear(), nn.Dropout(0.5, inplace=True), linear(), nn.Dropout(0.2)),
        vectors,
    ),
    "tied": (tied, vectors),
    "reused": (reused, vectors),
    "functional use": (functional, vectors),
    "scaled by a hook": (scaled_output, vectors),
    "parametrized": (parametrized, vectors),
    "detached branch": (changed_input, vectors),
    "frozen weight": (frozen, vectors),
    "checkpointed": (checkpointed, vectors),
    "tokens": (lambda: Called(lambda p, x: p[1](p[0](x).tanh()).mean(1), linear(), linear()), tokens),
    "one vector": (lambda: Called(lambda p, x: torch.stack([p[0](row) for row in x]), linear()), vectors),
    "attention": (Attention, tokens),
    "transformer": (
        lambda: Called(
            lambda p, x: p[0](x).mean(1), nn.TransformerEncoderLayer(SIZE, 2, 32, batch_first=True)
        ),
        tokens,
    ),
    "lstm": (lambda: Recurrent(nn.LSTM), tokens),
    "gru": (lambda: Recurrent(nn.GRU), tokens),
    "embedding": (
        lambda: Called(lambda p, x: p[1](p[0](x).mean(1)), nn.Embedding(7, SIZE), linear()),
        lambda: torch.randint(7, (4, 6)),
    ),
    "batch norm": (lambda: nn.Sequential(linear(), nn.BatchNorm1d(SIZE), nn.ReLU(), linear()), vectors),
    "layer norm": (lambda: nn.Sequential(linear(), nn.LayerNorm(SIZE), nn.GELU(), linear()), vectors),
    "conv": (
        lambda: nn.Sequential(nn.Conv2d(2, 3, 3), nn.ReLU(), nn.Flatten(), nn.Linear(12, SIZE)),
        images,
    ),
    "residual conv": (residual, images),
    "conv 1d": (
        lambda: convolution(nn.Conv1d, 8, 6, 12, kernel_size=5, stride=2, bias=False),
        lambda: torch.randn(3, 8, 7),
    ),
    "conv 2d": (
        lambda: convolution(nn.Conv2d, 8, 6, 24, kernel_size=3, padding=1, stride=2),
        lambda: torch.randn(3, 8, 4, 4),
    ),
    "conv 3d": (
        lambda: convolution(nn.Conv3d, 3, 4, 16, kernel_size=3, dilation=2, padding=1),
        lambda: torch.randn(2, 3, 4, 4, 4)[:, :, :, :3, :],
    ),
    "grouped conv": (
        lambda: convolution(nn.Conv2d, 8, 12, 48, kernel_size=(3, 2), padding="same", dilation=2, groups=2),
        lambda: torch.randn(2, 8, 2, 2).to(memory_format=torch.channels_last),
    ),
    "circular conv": (
        lambda: convolution(nn.Conv2d, 8, 6, 24, kernel_size=3, padding=1, padding_mode="circular"),
        lambda: torch.randn(3, 8, 2, 2),
    ),
    "conv of one image": (
        lambda: Called(lambda p, x: torch.stack([p[0](image).flatten() for image in x]), nn.Conv2d(2, 6, 3)),
        images,
    ),
    "reused conv": (
        lambda: Called(
            lambda p, x: p[1](p[0](p[0](x)).flatten(1)), nn.Conv2d(2, 2, 3, padding=1), linear_of(32)
        ),
        images,
    ),
    "large embedding": (lambda: embedding(50), identifiers),
    "padded embedding": (lambda: embedding(50, padding_idx=7), lambda: identifiers() // 8),
    "embedding of no gradient": (lambda: embedding(50, padding_idx=7), lambda: identifiers().fill_(7)),
    "normed embedding": (lambda: embedding(50, max_norm=1.0), identifiers),
    "embedding by frequency": (lambda: embedding(50, scale_grad_by_freq=True), identifiers),
    "sparse embedding": (lambda: embedding(50, sparse=True), identifiers),
    "shared table": (shared_table, identifiers),
    "looked up twice": (twice_looked_up, identifiers),
    "a function of its own": (
        lambda: Called(lambda p, x: p[1](Cube.apply(p[0](x))), linear(), linear()),
        vectors,
    ),
}


def build(kind: str) -> tuple[Multi, Tensor]:
    torch.manual_seed(0)
    backbone, inputs = BACKBONES[kind]
    x = inputs()
    return Multi(backbone()).double(), x.double() if x.is_floating_point() else x


def losses_of(outputs: dict[str, Tensor]) -> dict[str, Tensor]:
    return {task: (output - i).square().mean() for i, (task, output) in enumerate(outputs.items())}


def explicit(losses: dict[str, Tensor], parameters: list[Tensor]) -> Tensor:
    rows = []
    for loss in losses.values():
        gradients = torch.autograd.grad(loss, parameters, retain_graph=True, allow_unused=True)
        pairs = zip(parameters, gradients, strict=True)
        rows.append(
            torch.cat([(torch.zeros_like(p) if g is None else g.to_dense()).flatten() for p, g in pairs])
        )
    return torch.stack(rows)


def trained(module: nn.Module) -> list[Tensor]:
    return [parameter for parameter in module.parameters() if parameter.requires_grad]


def gathered(parameters: list[Tensor]) -> Tensor:
    return torch.cat([parameter.grad.to_dense().flatten() for parameter in parameters])


def forward(
    kind: str, weighting: GramianWeighting | JacobianAggregator
) -> tuple[Multi, Engine, dict[str, Tensor], list[Tensor], Tensor]:
    """A model after a forward, its engine, the losses, the shared parameters and the explicit Jacobian."""
    model, x = build(kind)
    engine = Engine(model, weighting)
    losses = losses_of(model(x))
    shared = trained(model.backbone)
    return model, engine, losses, shared, explicit(losses, shared)


@pytest.mark.parametrize("kind", BACKBONES)
def test_gramian_and_update_are_those_of_the_jacobian(kind: str) -> None:
    weighting = Recorder()
    model, engine, losses, shared, jacobian = forward(kind, weighting)
    own = explicit(losses, trained(model.heads)).sum(0)
    engine.backward(losses)
    gramian = jacobian @ jacobian.mT
    assert torch.allclose(weighting.gramian, gramian, rtol=1e-12, atol=1e-12 * gramian.max())
    weights = torch.arange(1.0, 4.0, dtype=torch.float64)
    assert torch.allclose(gathered(shared), weights @ jacobian, rtol=1e-12, atol=1e-13)
    assert torch.allclose(gathered(trained(model.heads)), own, rtol=1e-12, atol=1e-13)


@pytest.mark.parametrize("kind", BACKBONES)
def test_an_aggregator_is_given_the_jacobian(kind: str) -> None:
    keeper = Keeper()
    _, engine, losses, shared, jacobian = forward(kind, keeper)
    engine.backward(losses)
    assert torch.allclose(keeper.jacobian, jacobian, rtol=1e-12, atol=1e-13)
    assert torch.allclose(gathered(shared), jacobian.sum(0), rtol=1e-12, atol=1e-13)


@pytest.mark.parametrize("case", GRAMIAN_WEIGHTINGS, ids=str)
def test_every_gramian_weighting_gives_the_weighted_sum_of_the_rows(case: GramianCase) -> None:
    model, x = build("mlp")
    weighting, by_hand = case.build(), case.build()
    for each in (weighting, by_hand):
        each.setup(TASKS)
    engine = Engine(model, weighting, "parameters")
    batches = weighting.batches_per_step
    jacobians = []
    for _ in range(batches):
        losses = losses_of(model(x + len(jacobians)))
        shared = trained(model.backbone)
        jacobians.append(explicit(losses, shared))
        own = explicit(losses, trained(model.heads))
        engine.backward(losses)
    gramian = jacobians[0] @ jacobians[min(1, batches - 1)].mT
    weights = by_hand(gramian, losses=torch.stack([loss.detach() for loss in losses.values()]))
    assert torch.allclose(gathered(shared), weights @ jacobians[-1], rtol=1e-8, atol=1e-10)
    scaled = weights @ own if weighting.scale_heads else own.sum(0)
    assert torch.allclose(gathered(trained(model.heads)), scaled, rtol=1e-8, atol=1e-10)


@pytest.mark.parametrize("weighting", [Equal, UPGrad, MoCo])
def test_a_loss_scaler_of_torch_takes_the_step_without_it(weighting):
    """As in docs/how-to/own-loop.md; in float32, and with a power of 2 that changes no digit."""
    taken = []
    for scaled in (False, True):
        torch.manual_seed(0)
        model = MultiHead(MLP(4, [8], 8), {"a": nn.Linear(8, 1), "b": nn.Linear(8, 1)})
        x = torch.randn(16, 4)
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
        engine = Engine(model, weighting())
        scaler = torch.amp.GradScaler("cpu", init_scale=2.0**10, enabled=scaled)
        for _ in range(3):
            optimizer.zero_grad()
            losses = {
                name: (output - x.sum(1, keepdim=True)).abs().mean() for name, output in model(x).items()
            }
            engine.backward(losses, scale=scaler.scale(torch.ones(())))
            scaler.step(optimizer)
            scaler.update()
        taken.append([parameter.detach().clone() for parameter in model.parameters()])
    torch.testing.assert_close(taken[1], taken[0], rtol=1e-5, atol=1e-6)
