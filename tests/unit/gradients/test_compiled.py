"""Compiled models: the same gradients as without, or what to change."""

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
import torch._functorch.config as functorch
from torch import Tensor, nn

from polytask import UserError
from polytask.gradients import Engine
from polytask.models import MLP, MultiHead
from polytask.weighting import Equal, GradNorm, MoCo, UPGrad, Weighting

TASKS = ("a", "b")


@pytest.fixture(autouse=True)
def fresh():
    torch._dynamo.reset()
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


@pytest.fixture
def donating() -> Iterator[None]:
    """The compiler as it is before an engine was made."""
    with functorch.patch(donated_buffer=True):
        yield


@pytest.mark.parametrize("before", [Equal, UPGrad])
def test_a_model_that_was_trained_otherwise_before_has_the_same_gradients(
    before: type[Weighting], donating: None
) -> None:
    """A plain backward before, of one task say, would compile for a single backward."""
    model, plain = build(), build()
    engine, expected = Engine(model, before()), Engine(plain, UPGrad())
    model.backbone.compile(backend="aot_eager")
    model(points(0))["a"].sum().backward()
    step(engine, model, points(0))
    engine = Engine(model, UPGrad())
    model.zero_grad()
    step(engine, model, points(1))
    step(expected, plain, points(1))
    assert_equal(model, plain)


def test_buffers_that_are_given_away_before_an_engine_are_named(donating: None) -> None:
    model = build()
    model.backbone.compile(backend="aot_eager")
    model(points(0))["a"].sum().backward()
    engine = Engine(model, UPGrad())
    with pytest.raises(UserError, match=r"donates its buffers.*Create the engine, or the System, before"):
        step(engine, model, points(1))


ORDERS = {
    "losses, then gradients": ("Equal", "UPGrad"),
    "gradients, then losses": ("UPGrad", "Equal", "PCGrad"),
}
SCRIPT = """
import sys
import torch
from torch import nn
from polytask.gradients import Engine
from polytask.models import MLP, MultiHead
from polytask import weighting
for name in sys.argv[1:]:
    torch.manual_seed(0)
    model = MultiHead(torch.compile(MLP(16, [32], 16)), {task: nn.Linear(16, 1) for task in "ab"})
    plain = MultiHead(MLP(16, [32], 16), {task: nn.Linear(16, 1) for task in "ab"})
    plain.load_state_dict({key.replace("_orig_mod.", ""): value for key, value in model.state_dict().items()})
    for net in (model, plain):
        engine = Engine(net, getattr(weighting, name)())
        outputs = net(torch.ones(8, 16).cumsum(0))
        engine.backward({task: output.square().mean() for task, output in outputs.items()})
    for own, other in zip(model.parameters(), plain.parameters(), strict=True):
        torch.testing.assert_close(own.grad, other.grad)
"""


@pytest.mark.long
@pytest.mark.skipif(shutil.which("g++") is None, reason="the default compiler needs g++")
@pytest.mark.parametrize("processes", ["one process", "a process each"])
@pytest.mark.parametrize("order", ORDERS)
def test_what_the_compilers_cache_holds_does_not_matter(tmp_path: Path, order: str, processes: str) -> None:
    names = ORDERS[order]
    env = {**os.environ, "TORCHINDUCTOR_CACHE_DIR": str(tmp_path), "OMP_NUM_THREADS": "1"}
    for group in [names] if processes == "one process" else [(name,) for name in names]:
        command = [sys.executable, "-c", SCRIPT, *group]
        done = subprocess.run(command, env=env, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr[-2000:]


def test_other_errors_of_a_backward_are_not_hidden() -> None:
    model = build()
    outputs = model(points(0))
    outputs["a"].register_hook(lambda gradient: (_ for _ in ()).throw(RuntimeError("a hook of mine")))
    with pytest.raises(RuntimeError, match="a hook of mine"):
        Engine(model, UPGrad()).backward({task: out.square().mean() for task, out in outputs.items()})
