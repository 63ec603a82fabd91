"""What a step of the engine does with losses in every form, absent tasks, scales and windows."""

import gc
import weakref
from collections.abc import Iterable

import pytest
import torch
from torch import Tensor, nn

from polytask import MultiTaskLoss, RunError, UserError
from polytask.gradients import Engine
from polytask.models import MLP, MultiHead, Separate
from polytask.weighting import (
    DBMTL,
    MGDA,
    UW,
    Equal,
    ExcessMTL,
    GradDrop,
    GradNorm,
    GramianSolution,
    GramianWeighting,
    MoCo,
    MoDo,
    NashMTL,
    PCGrad,
    UPGrad,
)

TASKS = ("a", "b", "c")


class Told(GramianWeighting):
    """Gives the weights it was told, and keeps what it was given."""

    def __init__(self, **weights: float) -> None:
        super().__init__()
        self.told = weights
        self.seen: list[tuple[tuple[str, ...], Tensor, Tensor]] = []

    def forward(self, gramian, names=None, *, losses=None):
        self.now = names
        self.seen.append((names, gramian, losses))
        return super().forward(gramian, names, losses=losses)

    def solve(self, step):
        return GramianSolution(
            torch.tensor([self.told.get(name, 1.0) for name in self.now], dtype=torch.float64)
        )


def network(width: int = 12, tasks: Iterable[str] = TASKS) -> MultiHead:
    torch.manual_seed(0)
    return MultiHead(MLP(4, [width], width), {task: nn.Linear(width, 1) for task in tasks}).double()


def points(rows: int = 8, seed: int = 1) -> Tensor:
    return torch.randn(rows, 4, generator=torch.Generator().manual_seed(seed)).double()


def losses_of(model: nn.Module, x: Tensor, tasks: Iterable[str] = TASKS) -> dict[str, Tensor]:
    outputs = model(x)
    return {task: (outputs[task] - TASKS.index(task)).square().mean() for task in tasks}


def gradients(model: nn.Module) -> dict[str, Tensor]:
    found = {n: p.grad.clone() for n, p in model.named_parameters() if p.grad is not None}
    model.zero_grad()
    return found


def by_hand(
    model: nn.Module, x: Tensor, weights: dict[str, float], own: dict[str, float]
) -> dict[str, Tensor]:
    """Gradients of the weighted sum, with other weights for the heads."""
    losses = losses_of(model, x, weights)
    sum(weights[task] * loss for task, loss in losses.items()).backward()
    found = gradients(model)
    losses = losses_of(model, x, own)
    sum(own[task] * loss for task, loss in losses.items()).backward()
    return {name: g if "heads" in name else found[name] for name, g in gradients(model).items()}


def same(first: dict[str, Tensor], second: dict[str, Tensor], tolerance: float = 1e-12) -> bool:
    return first.keys() == second.keys() and all(
        torch.allclose(first[name], second[name], rtol=tolerance, atol=tolerance) for name in first
    )


WEIGHTS = {"a": 0.5, "b": 2.0, "c": 3.0}
ONES = dict.fromkeys(TASKS, 1.0)


@pytest.mark.parametrize("level", ["parameters", "representation", "last_shared"])
@pytest.mark.parametrize("scale_heads", [False, True])
def test_the_update_is_the_weighted_sum(level: str, scale_heads: bool) -> None:
    model, x = network(), points()
    engine = Engine(model, Told(**WEIGHTS), level, scale_heads=scale_heads)
    engine.backward(losses_of(model, x))
    expected = by_hand(network(), x, WEIGHTS, WEIGHTS if scale_heads else ONES)
    assert same(gradients(model), expected)
    assert {task: weight.item() for task, weight in engine.weights.items()} == WEIGHTS


@pytest.mark.parametrize("level", ["parameters", "representation", "last_shared"])
@pytest.mark.parametrize("scale_heads", [False, True])
def test_weights_are_kept_in_between(level: str, scale_heads: bool) -> None:
    model, x, weighting = network(), points(), Told(**WEIGHTS)
    engine = Engine(model, weighting, level, refresh_every=3, scale_heads=scale_heads)
    for step in range(7):
        engine.backward(losses_of(model, x + step))
        expected = by_hand(network(), x + step, WEIGHTS, WEIGHTS if scale_heads else ONES)
        assert same(gradients(model), expected)
    assert len(weighting.seen) == 3


def test_no_gradient_of_a_task_alone_is_computed_in_between() -> None:
    model, x, backwards = network(), points(), []
    engine = Engine(model, Told(), refresh_every=2, scale_heads=True)
    for _ in range(2):
        losses = losses_of(model, x)
        losses["a"].grad_fn.register_hook(lambda *_: backwards.append("a"))
        engine.backward(losses)
    first = len(backwards)
    engine = Engine(model, Told())
    losses = losses_of(model, x)
    backwards.clear()
    losses["a"].grad_fn.register_hook(lambda *_: backwards.append("a"))
    engine.backward(losses)
    assert first - len(backwards) == 1


def test_a_task_without_a_weight_makes_weights_anew() -> None:
    model, x, weighting = network(), points(), Told(**WEIGHTS)
    weighting.setup(TASKS)
    engine = Engine(model, weighting, refresh_every=10)
    engine.backward(losses_of(model, x, ("a", "b")))
    engine.backward(losses_of(model, x, ("b", "a")))
    engine.backward(losses_of(model, x, ("a", "c")))
    assert [names for names, *_ in weighting.seen] == [("a", "b"), ("a", "c")]


def test_gradients_add_to_those_there_are() -> None:
    model, x = network(), points()
    engine = Engine(model, Told(**WEIGHTS))
    for _ in range(2):
        engine.backward(losses_of(model, x))
    twice = gradients(model)
    expected = {name: 2 * gradient for name, gradient in by_hand(network(), x, WEIGHTS, ONES).items()}
    assert same(twice, expected)


def stacked(model: nn.Module, x: Tensor) -> Tensor:
    return torch.stack(list(losses_of(model, x).values()))


def targets(x: Tensor) -> dict[str, Tensor]:
    return {task: torch.full((len(x), 1), float(i)).double() for i, task in enumerate(TASKS)}


CRITERION = MultiTaskLoss(dict.fromkeys(TASKS, nn.MSELoss()))
FORMS = {
    "turned": lambda model, x: dict(reversed(losses_of(model, x).items())),
    "stacked": stacked,
    "scaled and taken apart": lambda model, x: dict(
        zip(TASKS, 4 * stacked(model, x) / torch.tensor([2.0, 2.0, 2.0]) / 2, strict=True)
    ),
    "taken one by one": lambda model, x: dict(zip(TASKS, list(stacked(model, x)), strict=True)),
    "criterion": lambda model, x: CRITERION.measurement.measure(model(x), targets(x)),
    "criterion by task": lambda model, x: CRITERION.compute_task_losses(model(x), targets(x)),
}


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("level", ["parameters", "representation"])
def test_losses_come_in_any_form(level: str, form: str) -> None:
    model, twin, x = network(), network(), points()
    weighting, known = Told(**WEIGHTS), Told(**WEIGHTS)
    for each in (weighting, known):
        each.setup(TASKS)
    Engine(twin, known, level).backward(losses_of(twin, x))
    engine = Engine(model, weighting, level)
    engine.backward(FORMS[form](model, x))
    assert same(gradients(model), gradients(twin))
    (names, gramian, losses), (_, known_gramian, known_losses) = weighting.seen[0], known.seen[0]
    assert names == TASKS
    assert torch.allclose(gramian, known_gramian)
    assert torch.allclose(losses, known_losses)


def test_names_say_which_tasks_a_vector_holds() -> None:
    model, x, weighting = network(), points(), Told(**WEIGHTS)
    weighting.setup(TASKS)
    losses = losses_of(model, x, ("a", "c"))
    Engine(model, weighting).backward(torch.stack(list(losses.values())), names=("a", "c"))
    assert weighting.seen[0][0] == ("a", "c")
    pair = {"a": 1.0, "c": 1.0}
    assert same(gradients(model), by_hand(network(), x, {"a": 0.5, "c": 3.0}, pair))


class Partly(nn.Module):
    """a and b share a layer on top of what all share; d shares nothing."""

    def __init__(self) -> None:
        super().__init__()
        self.all, self.some = nn.Linear(4, 6), nn.Linear(6, 6)
        self.heads = nn.ModuleDict({task: nn.Linear(6, 1) for task in TASKS})

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        h = self.all(x).tanh()
        some = self.some(h).tanh()
        return {"a": self.heads["a"](some), "b": self.heads["b"](some), "c": self.heads["c"](h)}


def test_a_partly_shared_parameter_gets_what_its_tasks_give() -> None:
    torch.manual_seed(0)
    model, x, weighting = Partly().double(), points(), Told(**WEIGHTS)
    losses = losses_of(model, x)
    shared = [*model.all.parameters(), *model.some.parameters()]
    rows = []
    for loss in losses.values():
        row = torch.autograd.grad(loss, shared, retain_graph=True, materialize_grads=True)
        rows.append(torch.cat([part.flatten() for part in row]))
    jacobian = torch.stack(rows)
    Engine(model, weighting).backward(losses)
    assert torch.allclose(weighting.seen[0][1], jacobian @ jacobian.mT, rtol=1e-12)
    update = torch.tensor(list(WEIGHTS.values())).double() @ jacobian
    assert torch.allclose(torch.cat([p.grad.flatten() for p in shared]), update, rtol=1e-12)


def test_an_own_parameter_becomes_shared_once_two_tasks_reach_it() -> None:
    model, x, weighting = Partly().double(), points(), Told()
    weighting.setup(TASKS)
    engine = Engine(model, weighting)
    engine.backward(losses_of(model, x, ("a", "c")))
    engine.backward(losses_of(model, x, ("b", "c")))
    engine.backward(losses_of(model, x, ("a", "c")))
    first, second, third = (gramian for _, gramian, _ in weighting.seen)
    assert third[0, 0] > first[0, 0]
    assert torch.allclose(third[1], first[1])
    assert second.shape == (2, 2)


def test_one_task_batches_show_nothing_until_a_second_task_comes() -> None:
    model, x, weighting = network(tasks=("a", "b")), points(), Told(a=5.0, b=5.0)
    weighting.setup(("a", "b"))
    engine = Engine(model, weighting)
    losses_of(model, x, ("a",))["a"].backward()
    plain = gradients(model)
    engine.backward(losses_of(model, x, ("a",)))
    assert same(gradients(model), plain)
    assert weighting.seen == []
    engine.backward(losses_of(model, x, ("b",)))
    assert [names for names, *_ in weighting.seen] == [("b",)]


def test_where_there_is_one_task_everything_is_shared() -> None:
    model, x, weighting = network(tasks=("a",)), points(), NashMTL(max_norm=None)
    Engine(model, weighting).backward(losses_of(model, x, ("a",)))
    length = torch.cat([p.grad.flatten() for p in model.parameters()]).norm()
    assert torch.allclose(length, torch.ones((), dtype=torch.float64))


@pytest.mark.parametrize("weighting", [GradDrop(seed=0), MoCo(), DBMTL(), ExcessMTL()])
def test_an_aggregator_makes_the_update(weighting: nn.Module) -> None:
    model, x = network(), points()
    twin = type(weighting)(seed=0) if isinstance(weighting, GradDrop) else type(weighting)()
    engine = Engine(model, weighting)
    for _ in range(2):
        losses = losses_of(model, x)
        shared = list(model.backbone.parameters())
        rows = [torch.autograd.grad(loss, shared, retain_graph=True) for loss in losses.values()]
        jacobian = torch.stack([torch.cat([g.flatten() for g in row]) for row in rows])
        vector = torch.stack([loss.detach() for loss in losses.values()])
        update = twin(jacobian, TASKS, losses=vector)
        factors = twin.head_weights(vector, TASKS)
        own = torch.autograd.grad(losses["b"], model.heads["b"].weight, retain_graph=True)[0]
        engine.backward(losses)
        assert torch.allclose(torch.cat([p.grad.flatten() for p in shared]), update, rtol=1e-10)
        assert torch.allclose(model.heads["b"].weight.grad, factors[1] * own, rtol=1e-10)
        model.zero_grad()


def test_a_loss_weighting_takes_a_plain_backward() -> None:
    model, x, weighting = network(), points(), UW()
    weighting.setup(TASKS)
    Engine(model, weighting).backward(losses_of(model, x))
    assert same(gradients(model), by_hand(network(), x, dict.fromkeys(TASKS, 0.5), dict.fromkeys(TASKS, 0.5)))
    assert all(p.grad is not None for p in weighting.parameters())


@pytest.mark.parametrize("level", ["parameters", "representation", "last_shared"])
@pytest.mark.parametrize("power", [0, 4, 16])
def test_a_loss_scale_changes_no_weight(level: str, power: int) -> None:
    model, x, scale = network().float(), points().float(), 2.0**power
    twin = network().float()
    engine, plain = Engine(model, NashMTL(), level), Engine(twin, NashMTL(), level)
    plain.backward(losses_of(twin, x))
    expected = gradients(twin)
    engine.backward(losses_of(model, x), scale=torch.tensor(scale))
    found = {name: gradient / scale for name, gradient in gradients(model).items()}
    assert all(torch.allclose(engine.weights[t], plain.weights[t], rtol=1e-5) for t in TASKS)
    assert same(found, expected, 1e-5)


@pytest.mark.parametrize("weighting", [MGDA(), MoCo()], ids=["gramian", "jacobian"])
def test_a_scale_that_is_too_large_is_left_to_the_scaler(weighting: nn.Module) -> None:
    model, x = network().float(), points().float()
    engine = Engine(model, weighting)
    engine.backward(losses_of(model, x), scale=1e38)
    assert not any(p.grad.isfinite().all() for p in model.parameters())
    model.zero_grad()
    engine.backward(losses_of(model, x), scale=2.0)
    assert all(p.grad.isfinite().all() for p in model.parameters())


@pytest.mark.parametrize("weighting", [UPGrad(), MoCo(), MoDo()], ids=lambda w: type(w).__name__)
def test_a_gradient_that_is_not_finite_names_the_task(weighting: nn.Module) -> None:
    model, x = network(), points()
    losses = losses_of(model, x)
    losses["b"] = losses["b"] * torch.inf
    with pytest.raises(RunError, match=r"must be finite, got NaN or infinity for b"):
        Engine(model, weighting).backward(losses)


def test_who_checks_later_is_not_interrupted() -> None:
    model, x, weighting = network(), points(), UPGrad()
    weighting.deferred = True
    losses = losses_of(model, x)
    losses["b"] = losses["b"] * torch.inf
    Engine(model, weighting).backward(losses)
    with pytest.raises(RunError, match="NaN or infinity"):
        weighting.check()


@pytest.mark.parametrize("level", ["parameters", "representation", "last_shared"])
def test_bfloat16_autocast(level: str) -> None:
    model, x = network(32).float(), points(16).float()
    exact, weighting = Told(), Told()
    twin = network(32).float()
    Engine(twin, exact, level).backward(losses_of(twin, x))
    expected = gradients(twin)
    engine = Engine(model, weighting, level)
    with torch.autocast("cpu", torch.bfloat16):
        losses = losses_of(model, x)
    engine.backward(losses)
    found = gradients(model)
    assert all(torch.allclose(found[n], expected[n], atol=0.05, rtol=0.1) for n in expected)
    assert torch.allclose(weighting.seen[0][1], exact.seen[0][1], rtol=0.1, atol=0.02)
    assert {g.dtype for g in found.values()} == {torch.float32}


@pytest.mark.parametrize("weighting", [UPGrad, PCGrad, MoCo, GradNorm, NashMTL], ids=lambda w: w.__name__)
def test_a_window_of_batches_is_one_large_batch(weighting: type) -> None:
    model, x = network(), points(16)
    options = {"seed": 0} if weighting is PCGrad else {}
    whole, parts = Engine(model, weighting(**options)), Engine(model, weighting(**options))
    for step in range(2):
        whole.backward(losses_of(model, x + step))
        expected = gradients(model)
        for number, part in enumerate((x + step).chunk(4)):
            losses = {task: loss / 4 for task, loss in losses_of(model, part).items()}
            parts.backward(losses, last=number == 3)
        assert same(gradients(model), expected, 1e-8)


def test_a_task_may_be_absent_from_a_part_of_a_window() -> None:
    model, x, weighting = network(), points(), Told(**WEIGHTS)
    weighting.setup(TASKS)
    engine = Engine(model, weighting)
    engine.backward(losses_of(model, x, ("c",)), last=False)
    engine.backward(losses_of(model, x + 1, ("a", "b")), last=False)
    assert gradients(model) == {}
    engine.backward(losses_of(model, x + 2, ("a",)))
    found = gradients(model)
    pieces = [({"c": 3.0}, x), ({"a": 0.5, "b": 2.0}, x + 1), ({"a": 0.5}, x + 2)]
    hand = [by_hand(network(), given, w, dict.fromkeys(w, 1.0)) for w, given in pieces]
    assert same(found, {n: sum(part[n] for part in hand if n in part) for n in found})
    assert weighting.seen[0][0] == TASKS


def test_a_method_with_three_batches_fills_gradients_in_the_third_call() -> None:
    model, x, weighting = network(), points(), MoDo(step_size=0.1)
    weighting.setup(TASKS)
    engine = Engine(model, weighting)
    engine.backward(losses_of(model, x, ("a", "b")))
    engine.backward(losses_of(model, x + 1))
    assert gradients(model) == {}
    engine.backward(losses_of(model, x + 2))
    assert len(gradients(model)) == len(list(model.parameters()))


def test_a_state_goes_on() -> None:
    model, x = network(), points()
    engine, other = (Engine(model, NashMTL(), refresh_every=4) for _ in range(2))
    engine.backward(losses_of(model, x))
    other.load_state_dict(engine.state_dict())
    assert other.state_dict() == engine.state_dict()
    gradients(model)
    for each in (engine, other):
        each.backward(losses_of(model, x, ("b",)))
    assert other.state_dict() == engine.state_dict()
    reached = [name for name in dict(model.named_parameters()) if "heads" not in name or "task_a" in name]
    assert other.state_dict()["shared"]["a"] == reached


def test_a_step_without_gradients_leaves_no_mark() -> None:
    """A validation between forward and backward, say."""
    model, x = network(), points()
    for level in ("parameters", "representation"):
        engine = Engine(model, Told(**WEIGHTS), level)
        losses = losses_of(model, x)
        with torch.no_grad():
            model(x + 1)
        engine.backward(losses)
        assert same(gradients(model), by_hand(network(), x, WEIGHTS, ONES))


REFUSED = {
    "no shared": (lambda: Separate({t: MLP(4, [3], 1) for t in TASKS}).double(), UPGrad, {}, "share"),
    "level": (network, UPGrad, {"level": "representations"}, "Did you mean 'representation'"),
    "refresh": (network, UPGrad, {"refresh_every": 0}, "must be an integer of at least 1, got 0"),
    "refresh of an aggregator": (network, MoCo, {"refresh_every": 2}, "requires a method with weights"),
    "level of an aggregator": (network, MoCo, {"level": "representation"}, "'parameters' for MoCo"),
    "level of losses": (
        network,
        Equal,
        {"level": "parameters"},
        "requires a gradient-based weighting, got Equal",
    ),
    "heads of losses": (network, Equal, {"scale_heads": True}, "scale_heads"),
    "three batches": (network, MoDo, {"refresh_every": 2}, "3 batches"),
    "no heads": (lambda: nn.Linear(4, 1).double(), UPGrad, {"level": "representation"}, "heads by task"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_does_not_go_together_is_refused(case: str) -> None:
    build, weighting, options, message = REFUSED[case]
    model = build()
    with pytest.raises(UserError, match=message):
        Engine(model, weighting(), **options).backward(losses_of(model, points()))


BAD = {
    "empty": (lambda losses: {}, "one present task"),
    "not scalar": (lambda losses: {**losses, "b": losses["b"][None]}, r"'b'.*shape \(1,\)"),
    "no graph": (lambda losses: {**losses, "b": losses["b"].detach()}, "'b'.*a graph"),
    "a number": (lambda losses: {**losses, "b": 1.0}, "'b'.*got 1.0"),
    "unknown": (lambda losses: {**losses, "bb": losses["b"]}, "no task is called 'bb'"),
    "two of three": (lambda losses: torch.stack([losses["a"], losses["b"]]), r"a, b, c, got shape \(2,\)"),
    "a sum": (lambda losses: losses["a"] + losses["b"], r"shape \(\)"),
}


@pytest.mark.parametrize("case", BAD)
def test_losses_that_do_not_fit_are_refused(case: str) -> None:
    model, weighting = network(), UPGrad()
    weighting.setup(TASKS)
    change, message = BAD[case]
    with pytest.raises(UserError, match=message):
        Engine(model, weighting).backward(change(losses_of(model, points())))


def test_names_are_for_vectors() -> None:
    model = network()
    with pytest.raises(UserError, match="names"):
        Engine(model, UPGrad()).backward(losses_of(model, points()), names=TASKS)


@pytest.mark.parametrize("every", [1, 2])
def test_no_input_of_a_layer_is_kept(every: int) -> None:
    model = network(32)
    engine = Engine(model, Told(), refresh_every=every)
    for step in range(2):
        losses = losses_of(model, points() + step)
        assert len(engine._level.layers.calls) == 5
        engine.backward(losses)
        assert engine._level.layers.calls == {}


@pytest.mark.slow
@pytest.mark.parametrize("every", [1, 2])
def test_no_representation_is_kept(every: int) -> None:
    model, kept = network(), []
    engine = Engine(model, Told(), "representation", refresh_every=every)
    model.backbone.register_forward_hook(lambda module, args, output: kept.append(weakref.ref(output)))
    for step in range(2):
        engine.backward(losses_of(model, points() + step))
        gc.collect()
        assert kept[-1]() is None


def test_layers_are_not_watched_for_whole_jacobians_and_losses() -> None:
    for weighting in (MoCo(), MoDo(), Equal()):
        model = network()
        Engine(model, weighting)
        assert not any(module._forward_hooks for module in model.modules())


def test_an_input_with_a_gradient_is_not_shared() -> None:
    """As where a loss has derivatives by the input: another tensor in every step."""
    found = []
    for wants in (False, True):
        model, weighting = network(), Told()
        engine = Engine(model, weighting)
        x = [points(seed=seed).requires_grad_(wants) for seed in range(3)]
        for each in x:
            engine.backward(losses_of(model, each))
        found.append(([gramian for _, gramian, _ in weighting.seen], gradients(model)))
    assert all(torch.allclose(one, other) for one, other in zip(found[0][0], found[1][0], strict=True))
    assert same(found[0][1], found[1][1])
    assert all(each.grad is not None for each in x)
    seen = weakref.ref(x.pop())
    del each, found
    gc.collect()
    assert seen() is None


@pytest.mark.parametrize("overflow", [0, 1, 2])
def test_a_scale_that_is_too_large_for_one_of_three_batches(overflow: int) -> None:
    model, weighting = network().float(), MoDo()
    weighting.deferred = True
    engine, x = Engine(model, weighting), points().float()
    for number in range(3):
        engine.backward(losses_of(model, x), scale=1e38 if number == overflow else 2.0)
    assert not any(p.grad.isfinite().all() for p in model.parameters())
    model.zero_grad()
    for _ in range(3):
        engine.backward(losses_of(model, x), scale=2.0)
    assert all(p.grad.isfinite().all() for p in model.parameters())
    weighting.check()


def test_a_state_is_gone_on_from_without_the_window_that_was_open() -> None:
    model = network()
    engine, x = Engine(model, UPGrad(), refresh_every=3), points()
    state = engine.state_dict()
    engine.backward(losses_of(model, x))
    engine.load_state_dict(state)
    assert engine.weights == {}
    engine.backward(losses_of(model, x), last=False)
    assert engine.begun
    engine.load_state_dict(state)
    assert not engine.begun


@pytest.mark.parametrize("level", ["parameters", "representation", "last_shared"])
def test_products_are_exact_within_autocast(level: str) -> None:
    seen = []
    for within in (False, True):
        model, weighting, x = network().float(), Told(), points().float()
        engine = Engine(model, weighting, level)
        losses = losses_of(model, x)
        with torch.autocast("cpu", torch.bfloat16, enabled=within):
            engine.backward(losses)
        seen.append(weighting.seen[0][1])
    assert torch.equal(seen[0], seen[1])


def test_a_backbone_that_is_frozen_between_measurements() -> None:
    model, x = network(), points()
    engine = Engine(model, UPGrad(), refresh_every=2)
    engine.backward(losses_of(model, x))
    model.backbone.requires_grad_(False)
    model.zero_grad()
    engine.backward(losses_of(model, x))
    assert {name.split(".")[0] for name in gradients(model)} == {"heads"}
