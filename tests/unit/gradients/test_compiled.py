"""Compiled models: the same gradients as without, or what to change."""

from concurrent.futures import ThreadPoolExecutor
from typing import Literal

import pytest
import torch
import torch._functorch.config as compiling
from torch import Tensor, nn

from polytask import UserError
from polytask.gradients import Engine
from polytask.models import MLP, MultiHead
from polytask.weighting import Equal, GradNorm, MoCo, UPGrad, Weighting

TASKS = ("a", "b")


@pytest.fixture(autouse=True)
def fresh():
    """What a new process begins with."""
    torch._dynamo.reset()
    with compiling.patch(donated_buffer=True):
        yield
    torch._dynamo.reset()


def build() -> MultiHead:
    torch.manual_seed(0)
    return MultiHead(MLP(4, [32], 32), {task: nn.Linear(32, 1) for task in TASKS}).double()


def step(engine: Engine, model: nn.Module, x: Tensor) -> None:
    engine.backward({task: (out - i).square().mean() for i, (task, out) in enumerate(model(x).items())})


def assert_equal(model: nn.Module, plain: nn.Module, rounding: float = 1e-12) -> None:
    for found, expected in zip(model.parameters(), plain.parameters(), strict=True):
        torch.testing.assert_close(found.grad, expected.grad, rtol=rounding, atol=rounding)


def points(seed: int) -> Tensor:
    return torch.randn(5, 4, generator=torch.Generator().manual_seed(seed)).double()


@pytest.mark.slow
@pytest.mark.parametrize(
    ("backend", "weighting", "first"),
    [
        ("eager", UPGrad, "engine"),
        ("aot_eager", UPGrad, "engine"),
        ("aot_eager", UPGrad, "compiler"),
        ("aot_eager", MoCo, "compiler"),
    ],
)
def test_a_compiled_backbone_has_the_same_gradients(
    backend: str, weighting: type[Weighting], first: str
) -> None:
    model, plain = build(), build()
    expected = Engine(plain, weighting())
    if first == "compiler":
        model.backbone.compile(backend=backend)
    engine = Engine(model, weighting())
    if first == "engine":
        model.backbone.compile(backend=backend)
    for seed in range(2):
        for each, net in ((engine, model), (expected, plain)):
            net.zero_grad()
            step(each, net, points(seed))
    assert_equal(model, plain)


# The compiler itself looks at gradients of what is no leaf where a graph ends, as before each head.
@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor that is not a leaf")
@pytest.mark.parametrize("backend", ["eager", "aot_eager"])
def test_the_representation_of_a_compiled_model(backend: str) -> None:
    model, plain = build(), build()
    engine, expected = (Engine(net, UPGrad(), "representation") for net in (model, plain))
    model.compile(backend=backend)
    step(engine, model, points(0))
    step(expected, plain, points(0))
    assert_equal(model, plain)


def test_a_hook_of_ours_does_not_break_a_compiled_graph() -> None:
    model = build()
    engine = Engine(model, UPGrad())
    model.backbone.compile(backend="eager", fullgraph=True)
    step(engine, model, points(0))
    assert all(parameter.grad is not None for parameter in model.parameters())


def test_a_model_compiled_as_a_whole_is_refused() -> None:
    """All tasks would seem to reach all parameters, the other tasks' heads too."""
    model = build()
    engine = Engine(model, UPGrad())
    model.compile(backend="aot_eager")
    with pytest.raises(UserError, match=r"one compiled graph with outputs for different tasks.*backbone"):
        step(engine, model, points(0))


def test_losses_compiled_with_the_model_are_refused() -> None:
    model = build()
    engine = Engine(model, UPGrad())

    @torch.compile(backend="aot_eager")
    def losses(x: Tensor) -> dict[str, Tensor]:
        return {task: out.square().mean() for task, out in model(x).items()}

    with pytest.raises(UserError, match="one compiled graph"):
        engine.backward(losses(points(0)))


def test_the_order_of_compiled_layers_is_not_known() -> None:
    model = build()
    engine = Engine(model, GradNorm(), "last_shared")
    model.backbone.compile(backend="aot_eager")
    with pytest.raises(UserError, match="'last_shared' requires a last shared layer that is not compiled"):
        step(engine, model, points(0))


def test_one_task_may_be_compiled_as_a_whole() -> None:
    torch.manual_seed(0)
    model = MultiHead(MLP(4, [8], 8), {"a": nn.Linear(8, 1)}).double()
    engine = Engine(model, UPGrad())
    model.compile(backend="aot_eager")
    step(engine, model, points(0))
    assert all(parameter.grad is not None for parameter in model.parameters())


@pytest.mark.slow
def test_methods_in_any_order_share_compiled_graphs() -> None:
    """A plain backward compiles for a single one, unless an engine has asked for several before."""
    for weighting in (Equal, UPGrad, Equal, MoCo, UPGrad, Equal):
        model, plain = build(), build()
        model.backbone.compile(backend="aot_eager")
        for net in (model, plain):
            step(Engine(net, weighting()), net, points(0))
        assert_equal(model, plain)


@pytest.mark.slow
@pytest.mark.parametrize("level", ["parameters", "representation"])
def test_a_recorder_of_a_compiled_model_may_come_after_its_first_steps(
    level: Literal["representation", "parameters"],
) -> None:
    found = []
    for compiled in (True, False):
        model = build()
        if compiled:
            model.backbone.compile(backend="aot_eager")
        engine = Engine(model, Equal())
        step(engine, model, points(0))
        engine.observe(level, lambda observed: found.append(observed.gramian)).due = True
        step(engine, model, points(1))
    torch.testing.assert_close(*found)


def test_the_backward_of_a_compiled_graph_may_run_in_another_thread() -> None:
    """As that of a device does, where the option has its default; a graph of the disk says nothing of it."""
    model, plain = build(), build()
    model.backbone.compile(backend="aot_eager")
    engine, expected = Engine(model, UPGrad()), Engine(plain, UPGrad())
    step(expected, plain, points(0))
    for seed in range(2):
        model(points(seed))["a"].sum().backward()
        model.zero_grad()
        losses = {task: (out - i).square().mean() for i, (task, out) in enumerate(model(points(0)).items())}
        with ThreadPoolExecutor(1) as pool:
            pool.submit(engine.backward, losses).result()
    assert_equal(model, plain)


def test_a_graph_that_was_compiled_for_one_backward_is_named() -> None:
    """Torch no longer says so once the option is off, and its second gradient is another."""
    model = build()
    model.backbone.compile(backend="aot_eager")
    model(points(0))["a"].sum().backward()
    outputs = model(points(1))
    with pytest.raises(UserError, match=r"donates its buffers.*Create the engine before the forward"):
        Engine(model, UPGrad()).backward({task: out.square().mean() for task, out in outputs.items()})


def test_other_errors_of_a_backward_are_not_hidden() -> None:
    model = build()
    outputs = model(points(0))
    outputs["a"].register_hook(lambda gradient: (_ for _ in ()).throw(RuntimeError("a hook of mine")))
    with pytest.raises(RuntimeError, match="a hook of mine"):
        Engine(model, UPGrad()).backward({task: out.square().mean() for task, out in outputs.items()})
