"""What experts and gates are made of, and what cannot be used."""

import copy
from functools import partial

import pytest
import torch
from torch import nn

from polytask import UserError
from polytask.models import CGC, MLP, PLE, DSelectK, ExpertLoad, MMoE
from polytask.models._dselect_k import smooth_step

EXPERT = partial(MLP, 5, [], 4)
HEADS = {"a": nn.Linear(4, 1), "b": nn.Linear(4, 1)}
X = torch.rand(3, 5)


def heads():
    return copy.deepcopy(HEADS)


class Sized(nn.Module):
    """Returns zeros of one shape for each row."""

    def __init__(self, *shape):
        super().__init__()
        self.shape = shape

    def forward(self, x):
        return torch.zeros(len(x), *self.shape)


class TwoSizes:
    """Makes experts whose outputs grow from one to the next."""

    def __init__(self):
        self.size = 3

    def __call__(self):
        self.size += 1
        return nn.Linear(5, self.size)


ONE = nn.Linear(5, 4)

REFUSED = [
    (lambda: MMoE(nn.Linear(5, 4), heads(), 5), "expert: must return a module when called.*got a Linear"),
    (lambda: MMoE(3, heads(), 5), "expert: must return a module when called.*got a int"),
    (lambda: MMoE(MLP, heads(), 5), r"expert: must accept the arguments \(\)"),
    (lambda: MMoE(dict, heads(), 5), "expert: must return a torch.nn.Module, got a dict"),
    (lambda: MMoE(lambda: ONE, heads(), 5), "expert: must return a new module at every call"),
    (lambda: MMoE(EXPERT, heads(), 5, 0), "num_experts: must be an integer of at least 1, got 0"),
    (
        lambda: MMoE(EXPERT, heads(), 0),
        "gate: must be an integer of at least 1, or a callable that returns a module, got 0",
    ),
    (lambda: MMoE(EXPERT, heads(), nn.Linear(5, 8)), "gate: must return a module when called"),
    (lambda: MMoE(EXPERT, heads(), 5, gate_input=1.5), "gate_input: must be a key, an index or a module"),
    (lambda: MMoE(EXPERT, {}, 5), "heads: needs at least one task"),
    (
        lambda: CGC(EXPERT, heads(), 5, 0, 0),
        "task_experts.a: must be at least 1 if no expert is shared",
    ),
    (lambda: CGC(EXPERT, heads(), 5, 0, {"a": 1, "b": 0}), "task_experts.b: must be at least 1 if no expert"),
    (lambda: CGC(EXPERT, heads(), 5, 1, {"a": 1}), "task_experts.b: is required"),
    (lambda: CGC(EXPERT, heads(), 5, 1, {"a": 1, "bb": 1}), "no task is called 'bb'. Did you mean 'b'"),
    (lambda: CGC(EXPERT, heads(), 5, -1), "shared_experts: must be an integer of at least 0, got -1"),
    (lambda: PLE([EXPERT], heads(), [5, 5]), "gates: must have one entry for each level, got 2 for 1"),
    (lambda: PLE(EXPERT, heads(), [5]), "experts: must be a list with an entry for each level"),
    (lambda: PLE([], heads(), []), "experts: must be a list with an entry for each level"),
    (lambda: PLE([EXPERT, EXPERT], heads(), [5, 4], 0), "shared_experts: must be at least 1 if"),
    (lambda: DSelectK(EXPERT, heads(), 4, 5), "k: must be at most the number of experts, 4, got 5"),
    (lambda: DSelectK(EXPERT, heads(), 4, 2, gamma=0.0), "gamma: must be a finite number above 0"),
    (lambda: DSelectK(EXPERT, heads(), 4, 2, gate_input="x"), "gate_input: requires gates with an input"),
]


@pytest.mark.parametrize(("make", "message"), REFUSED, ids=[message for _, message in REFUSED])
def test_an_argument_that_cannot_be_used(make, message):
    with pytest.raises(UserError, match=message):
        make()


REFUSED_AT_A_CALL = [
    (lambda: MMoE(TwoSizes(), heads(), 5, 2), r"one shape \(rows, ...\), got \(3, 4\), \(3, 5\)"),
    (lambda: MMoE(partial(nn.Flatten, 0), heads(), 5, 2), r"one shape \(rows, ...\), got \(15,\)"),
    (
        lambda: MMoE(EXPERT, heads(), lambda n: Sized(n + 1)),
        r"gate: must return .* \(rows, 8\), got .*\(3, 9\)",
    ),
    (lambda: MMoE(EXPERT, heads(), lambda n: Sized(7, n)), r"gate: must return .* for experts"),
    (lambda: MMoE(EXPERT, heads(), 4), "MLP: inputs must have the shape"),
    (
        lambda: MMoE(EXPERT, heads(), 5, gate_input="x"),
        "gate_input: must be an entry of the input, which has no entry 'x'",
    ),
]


@pytest.mark.parametrize(("make", "message"), REFUSED_AT_A_CALL, ids=[m for _, m in REFUSED_AT_A_CALL])
def test_what_does_not_fit_at_a_call(make, message):
    model = make()
    with pytest.raises(UserError, match=message):
        model(X)


def test_a_missing_key_of_the_input_names_the_nearest():
    class Entry(nn.Linear):
        def forward(self, x):
            return super().forward(x["values"])

    model = MMoE(partial(Entry, 5, 4), heads(), 2, 2, gate_input="domian")
    x = {"values": X, "domain": torch.rand(3, 2)}
    with pytest.raises(UserError, match="Did you mean 'domain'"):
        model(x)
    model.gate_input.feature = "domain"
    assert model(x, "a").shape == (3, 1)


@pytest.mark.parametrize("model", [
    lambda feature: MMoE(EXPERT, heads(), 2, 2, gate_input=feature),
    lambda feature: CGC(EXPERT, heads(), 2, gate_input=feature),
    lambda feature: PLE([EXPERT, partial(MLP, 4, [], 4)], heads(), [2, 2], gate_input=feature),
    lambda feature: DSelectK(EXPERT, heads(), 4, 2, 2, gate_input=feature),
])  # fmt: skip
def test_gates_see_the_feature_and_nothing_else(model):
    class First(nn.Module):
        def forward(self, x):
            return x[:, :2]

    seen = []
    model = model(First())
    for _, module in model.named_modules():
        if hasattr(module, "experts") and hasattr(module, "task"):
            module.register_forward_pre_hook(lambda module, args: seen.append(args[0]))
    model(X)
    assert seen
    assert all(torch.equal(x, X[:, :2]) for x in seen)


def calls(model, x, task):
    counts = {}
    for name, module in model.named_modules():
        if isinstance(module, nn.Linear):
            module.register_forward_pre_hook(
                lambda m, args, name=name: counts.update({name: counts.get(name, 0) + 1})
            )
    model(x, task)
    return counts


def test_a_chosen_task_runs_its_own_experts_once_and_no_others():
    model = CGC(EXPERT, heads(), 5, shared_experts=2, task_experts={"a": 1, "b": 3})
    counts = calls(model, X, "b")
    assert set(counts.values()) == {1}
    assert sum("own.task_b" in name for name in counts) == 3
    assert sum(".shared." in name for name in counts) == 2
    assert not any("task_a" in name for name in counts)


def test_the_last_level_of_ple_runs_for_the_chosen_task_alone():
    model = PLE([EXPERT, partial(MLP, 4, [], 4)], heads(), [5, 4])
    counts = calls(model, X, "a")
    assert any("levels.0.own.task_b" in name for name in counts)
    assert not any("levels.0.gates.task_b" in name for name in counts)
    assert not any(name.startswith("levels.1") and "task_b" in name for name in counts)


def saturated(model, task, number):
    with torch.no_grad():
        bits = [1.0 if number >> digit & 1 else -1.0 for digit in range(model.gates[task].digits)]
        model.gates[task].values.copy_(torch.tensor([*bits, 0.0]))


def test_in_evaluation_dselect_k_runs_the_experts_that_count():
    model = DSelectK(EXPERT, heads(), num_experts=6, k=1)
    saturated(model, "a", 2)
    saturated(model, "b", 7)
    expected = model(X)
    counts = calls(model.eval(), X, ["a", "b"])
    assert {name.split(".")[1] for name in counts if name.startswith("experts")} == {"1", "2"}
    for task, output in model(X).items():
        torch.testing.assert_close(output, expected[task])


def test_dselect_k_follows_parameters_that_change_in_evaluation():
    model = DSelectK(EXPERT, heads(), num_experts=4, k=1)
    saturated(model, "a", 2)
    model.eval()
    assert {name.split(".")[1] for name in calls(model, X, "a") if name.startswith("experts")} == {"2"}
    model.gates["a"].values.data = torch.tensor([1.0, 1.0, 0.0])
    torch.testing.assert_close(model(X, "a"), model.heads["a"](model.experts[3](X)))


@pytest.mark.parametrize("way", ["eval", "load"])
def test_the_export_of_dselect_k_has_the_experts_that_count(way):
    model = DSelectK(EXPERT, heads(), num_experts=6, k=2)
    state = model.state_dict() | {"gates.task_a.values": torch.tensor([9.0, -9, -9, -9, 9, -9, 0.0, 1.0])}
    if way == "eval":
        model.load_state_dict(state)
        model.eval()
    else:
        model.eval().load_state_dict(state)
    program = torch.export.export(model, (X, "a"))
    torch.testing.assert_close(program.module()(X, "a"), model(X, "a"))
    products = [node for node in program.graph.nodes if node.target is torch.ops.aten.linear.default]
    assert len(products) == 2 + 1


def test_dselect_k_may_be_built_without_values():
    with torch.device("meta"):
        model = DSelectK(EXPERT, {"a": nn.Linear(4, 3)}, num_experts=4).eval()
        assert model(torch.empty(3, 5), "a").shape == (3, 3)


def test_compiled_dselect_k_runs_in_one_graph():
    model = DSelectK(EXPERT, heads(), num_experts=4, k=1)
    saturated(model, "a", 2)
    compiled = torch.compile(model.eval(), fullgraph=True, backend="eager")
    torch.testing.assert_close(compiled(X, "a"), model(X, "a"))


def test_codes_beyond_the_experts_count_for_the_first():
    model = DSelectK(EXPERT, heads(), num_experts=5, k=1)
    saturated(model, "a", 6)
    assert model.gates["a"](None).tolist() == [0.0, 1.0, 0.0, 0.0, 0.0]


@pytest.mark.parametrize("gate", [None, 5, partial(MLP, 5, [3])])
@pytest.mark.parametrize("experts", [2, 3, 5, 8])
def test_selectors_weights_sum_to_one(gate, experts):
    weights = DSelectK(EXPERT, heads(), num_experts=experts, k=2, gate=gate).gates["a"](X)
    torch.testing.assert_close(weights.sum(dim=-1), torch.ones(weights.shape[:-1]))


@pytest.mark.parametrize("gate", [None, 5])
@pytest.mark.parametrize("experts", [2, 3, 5, 8])
def test_selectors_begin_everywhere(gate, experts):
    assert (DSelectK(EXPERT, heads(), num_experts=experts, k=2, gate=gate).gates["a"](X) > 0).all()


def test_selectors_become_one_hot_in_training():
    torch.manual_seed(0)
    model = DSelectK(EXPERT, heads(), num_experts=4, k=1)
    with torch.no_grad():
        for index, expert in enumerate(model.experts):
            for parameter in expert.parameters():
                parameter.fill_(1.0 if index == 2 else -1.0)
    optimizer = torch.optim.SGD(model.gates.parameters(), lr=0.1)
    for _ in range(100):
        optimizer.zero_grad()
        (model.represent(X, ["a"])["a"] - model.experts[2](X).detach()).square().sum().backward()
        optimizer.step()
    assert model.gates["a"](None).tolist() == [0.0, 0.0, 1.0, 0.0]


def test_the_smooth_step_is_a_step_that_is_smooth():
    t = torch.linspace(-2, 2, 401, dtype=torch.float64, requires_grad=True)
    values = smooth_step(t, 3.0)
    assert (values.diff() >= 0).all()
    assert values[t <= -1.5].eq(0).all()
    assert values[t >= 1.5].eq(1).all()
    torch.testing.assert_close(values + values.flip(0), torch.ones_like(values))
    inner = t.detach()[values > 0]
    torch.testing.assert_close(
        smooth_step(inner, 3.0)[inner < 1.5], (-2 / 27 * inner**3 + inner / 2 + 0.5)[inner < 1.5]
    )
    (slopes,) = torch.autograd.grad(values.sum(), t)
    assert slopes.diff().abs().max() < 0.02


def test_experts_are_initialised_apart():
    model = MMoE(EXPERT, heads(), 5, 3)
    one, other, _ = (expert.layers.linear1.weight for expert in model.experts)
    assert not torch.equal(one, other)


# Load


def test_load_is_the_mean_weight_over_all_samples():
    model = MMoE(EXPERT, heads(), 5, 3)
    with ExpertLoad(model) as load:
        model(X)
        model(2 * X, "a")
        shares = load.shares()
    weights = torch.cat([model.gates["a"](X), model.gates["a"](2 * X)]).mean(dim=0)
    torch.testing.assert_close(torch.tensor(list(shares["a"].values())), weights)
    assert list(shares["a"]) == ["expert0", "expert1", "expert2"]
    torch.testing.assert_close(torch.tensor(list(shares["b"].values())), model.gates["b"](X).mean(dim=0))


def test_load_names_levels_own_and_shared_experts():
    model = PLE([EXPERT, partial(MLP, 4, [], 4)], heads(), [5, 4])
    with ExpertLoad(model) as load:
        model(X)
        shares = load.shares()
    own = ["level1_own0", "level1_shared0", "level2_own0", "level2_shared0"]
    assert list(shares["a"]) == list(shares["b"]) == own
    assert list(shares["sharing"]) == ["a_level1_own0", "b_level1_own0", "level1_shared0"]
    assert sum(shares["sharing"].values()) == pytest.approx(1)
    assert sum(shares["a"].values()) == pytest.approx(2)


def test_load_counts_training_only_and_forgets():
    model = DSelectK(EXPERT, heads(), num_experts=3)
    load = ExpertLoad(model)
    model.eval()(X)
    assert load.shares() == {}
    model.train()(X)
    assert set(load.shares()) == {"a", "b"}
    load.reset()
    assert load.shares() == {}
    load.close()
    model(X)
    assert load.shares() == {}


def test_load_needs_gates():
    with pytest.raises(UserError, match="model: must have gates"):
        ExpertLoad(nn.Linear(1, 1))


def test_load_does_not_hold_the_graph():
    model = MMoE(EXPERT, heads(), 5, 3)
    with ExpertLoad(model) as load:
        model(X)
        assert all(not counted.requires_grad for counted in load._sums.values())
