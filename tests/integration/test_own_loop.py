"""The loop of docs/how-to/own-loop.md with every weighting, and loops in which one would never move."""

import copy
import re
from pathlib import Path

import pytest
import torch
from torch import nn

from polytask import UserError
from polytask.gradients import Engine
from polytask.models import MLP, MultiHead
from polytask.weighting import DWA, FAMO, STCH, UW, Equal, GramianWeighting, PCGrad, UPGrad, Weighting
from tests.cases import TASKS, WEIGHTINGS

PAGE = Path(__file__).parents[2] / "docs" / "how-to" / "own-loop.md"


def page() -> str:
    """The page's loop for the tasks of the cases, without its last line, which prints."""
    blocks = re.findall(r"```\{testcode\}\n(.*?)```", PAGE.read_text(), re.DOTALL)
    (code,) = [block for block in blocks if "steps_per_epoch=10" in block]
    for old, new in (
        ('"sum"', '"a"'),
        ('"norm"', '"b"'),
        ("targets = {", 'targets = {"c": x[:, :1], '),
        ("MLP(8, [32], 16), {", 'MLP(8, [32], 16), {"c": nn.Linear(16, 1), '),
        ('tasks=["a", "b"]', 'tasks=["a", "b", "c"]'),
        ("weighting = UPGrad()", "weighting = build()"),
        ("range(100)", "range(25)"),
    ):
        assert old in code
        code = code.replace(old, new)
    return "\n".join(code.splitlines()[:-1])


def run(build) -> dict:
    variables = {"build": build}
    exec(compile(page(), PAGE.name, "exec"), variables)
    return variables


def weights_of(variables) -> torch.Tensor:
    return torch.cat([parameter.detach().flatten() for parameter in variables["model"].parameters()])


@pytest.fixture(scope="module")
def plain():
    return weights_of(run(Equal))


@pytest.mark.parametrize("case", WEIGHTINGS, ids=str)
def test_each_weighting_moves_in_the_loop_of_the_page(case, plain):
    built = []

    def build():
        weighting = case.build()
        fresh = copy.deepcopy(weighting)
        fresh.setup(TASKS)
        built.append(copy.deepcopy(fresh.state_dict()))
        return weighting

    variables = run(build)
    weighting: Weighting = variables["weighting"]
    assert weighting.names == tuple(TASKS)
    assert all(torch.isfinite(value).all() for value in weights_of(variables))
    assert torch.equal(weights_of(variables), plain) == isinstance(weighting, Equal)
    state = weighting.state_dict()
    moved = [
        key
        for key, value in state.items()
        if key not in built[0] or value.shape != built[0][key].shape or not torch.equal(value, built[0][key])
    ]
    learned = [name for name, _ in weighting.named_parameters()]
    assert set(learned) <= set(moved)
    hooks = (Weighting.after_step, Weighting.on_epoch_end)
    if (type(weighting).after_step, type(weighting).on_epoch_end) != hooks:
        assert moved


def parts(weighting, **options):
    torch.manual_seed(0)
    model = MultiHead(MLP(4, [8], 8), {name: nn.Linear(8, 1) for name in "abc"})
    return model, Engine(model, weighting, **options)


def losses(model, present="abc"):
    outputs = model(torch.ones(4, 4))
    return {name: (outputs[name] - index).square().mean() for index, name in enumerate(present)}


def test_learned_weights_require_the_tasks_before_the_optimizer():
    model, engine = parts(UW())
    with pytest.raises(UserError, match="tasks: are required for UW, whose parameters must exist"):
        engine.backward(losses(model))


def test_an_optimizer_without_the_learned_weights_is_refused():
    weighting = UW()
    model, engine = parts(weighting, tasks="abc")
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    engine.backward(losses(model))
    optimizer.step()
    optimizer.zero_grad()
    with pytest.raises(UserError, match="optimizer: must have the parameters of UW"):
        engine.backward(losses(model))


def test_learned_weights_accumulate_gradients():
    weighting = UW()
    model, engine = parts(weighting, tasks="abc")
    optimizer = torch.optim.SGD([*model.parameters(), *weighting.parameters()], lr=0.1)
    for _ in range(2):
        engine.backward(losses(model), last=False)
        engine.backward(losses(model))
        # Gradients that are not reset are no fault of the optimizer.
        optimizer.step()


@pytest.mark.parametrize("kind", [DWA, STCH])
def test_losses_of_epochs_require_their_length(kind):
    model, engine = parts(kind())
    with pytest.raises(UserError, match=f"steps_per_epoch: is required for {kind.__name__}"):
        engine.backward(losses(model))
    with pytest.raises(UserError, match="steps_per_epoch: must be an integer of at least 1, got 0"):
        parts(kind(), steps_per_epoch=0)


def test_epochs_have_the_mean_losses_of_their_steps():
    received = []

    class Kept(Equal):
        def on_epoch_end(self, losses, names=None):
            received.append((names, losses.tolist()))

    model, engine = parts(Kept(), tasks="abc", steps_per_epoch=2)
    steps = [losses(model, present) for present in ("abc", "ab", "b", "b")]
    for step in steps:
        engine.backward(step)
    values = [{name: loss.item() for name, loss in step.items()} for step in steps]
    first = [(values[0]["a"] + values[1]["a"]) / 2, (values[0]["b"] + values[1]["b"]) / 2, values[0]["c"]]
    assert received == [
        (("a", "b", "c"), pytest.approx(first)),
        (("b",), pytest.approx([(values[2]["b"] + values[3]["b"]) / 2])),
    ]


def test_losses_after_a_step_are_required_and_passed():
    model, engine = parts(FAMO())
    engine.backward(losses(model))
    with pytest.raises(
        UserError, match=r"Engine.after_step: must be called after each optimizer step for FAMO"
    ):
        engine.backward(losses(model))
    with torch.no_grad():
        engine.after_step({name: loss / 2 for name, loss in losses(model).items()})
    engine.backward(losses(model))


def test_losses_of_a_step_are_passed_before_the_next():
    received = []

    class Kept(Equal):
        def after_step(self, losses, names=None):
            received.append((names, losses.tolist()))

    model, engine = parts(Kept(), tasks="abc")
    first = losses(model, "ab")
    engine.backward(first)
    assert received == []
    engine.backward(losses(model))
    assert received == [(("a", "b"), pytest.approx([loss.item() for loss in first.values()]))]


@pytest.mark.parametrize("kind", [Equal, UPGrad, PCGrad, UW])
def test_a_task_may_come_later(kind):
    weighting = kind()
    model, engine = parts(weighting, tasks="abc")
    optimizer = torch.optim.SGD([*model.parameters(), *weighting.parameters()], lr=0.1)
    for present in ("bc", "abc", "a"):
        optimizer.zero_grad()
        engine.backward(losses(model, present))
        optimizer.step()
    assert model.heads["a"].weight.grad is not None
    if isinstance(weighting, GramianWeighting):
        assert set(engine.weights) == set("abc")


def test_a_task_that_comes_later_unannounced_is_named():
    model, engine = parts(UPGrad())
    engine.backward(losses(model, "bc"))
    with pytest.raises(
        UserError, match=r"tasks: are required if the first step does not have them all, got 'a' after b, c"
    ):
        engine.backward(losses(model))


def test_tasks_must_be_those_of_the_weighting():
    weighting = UPGrad()
    weighting.setup("ab")
    with pytest.raises(UserError, match="tasks: must be those of the UPGrad, a, b, got a, b, c"):
        parts(weighting, tasks="abc")
    assert parts(weighting, tasks="ab")[1].weighting.names == ("a", "b")


@pytest.mark.parametrize("level", ["parameters", "last_shared"])
def test_an_engine_of_a_part_of_what_tasks_share_is_refused(level):
    layers = [nn.Linear(4, 6), nn.Tanh(), nn.Linear(6, 2)]
    body, head = nn.Sequential(*layers), nn.Linear(2, 2)
    part = (
        MultiHead(body[2:], {"a": nn.Identity(), "b": nn.Identity()}) if level == "last_shared" else body[2:]
    )
    engine = Engine(part, UPGrad(), level)
    outputs = part(body[:2](torch.ones(3, 4)))
    outputs = outputs["a"] if isinstance(outputs, dict) else outputs
    by_task = head(outputs).mean(dim=0)
    with pytest.raises(
        UserError, match=r"model: must have all parameters that two tasks reach, got [24] others"
    ):
        engine.backward({"a": by_task[0], "b": by_task[1]})


def test_an_engine_of_a_part_balances_that_part_alone_once_its_inputs_are_detached():
    torch.manual_seed(0)
    body = nn.Sequential(nn.Linear(4, 6), nn.Tanh(), nn.Linear(6, 2)).double()
    received = []

    class Kept(UPGrad):
        def solve(self, step):
            received.append(step.gramian)
            return super().solve(step)

    engine = Engine(body[2:], Kept())
    features = body[:2](torch.randn(3, 4, dtype=torch.float64)).detach()
    losses = body[2:](features).square().mean(dim=0)
    rows = [
        torch.cat(
            [g.flatten() for g in torch.autograd.grad(loss, list(body[2:].parameters()), retain_graph=True)]
        )
        for loss in losses
    ]
    engine.backward({"a": losses[0], "b": losses[1]})
    jacobian = torch.stack(rows)
    torch.testing.assert_close(received[0], jacobian @ jacobian.T, rtol=1e-12, atol=1e-12)
    assert all(parameter.grad is None for parameter in body[:2].parameters())
