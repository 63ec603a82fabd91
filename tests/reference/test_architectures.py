"""Sharing schemes against closed forms: limits in which they are something simpler, and formulas by hand."""

import copy
import itertools
import math

import pytest
import torch
from torch import nn
from torch.nn import functional

from polytask import UserError
from polytask.gradients import Engine
from polytask.models import (
    MLP,
    MTAN,
    NDDR,
    CrossStitch,
    LearningToBranch,
    MultiHead,
    MultiLabelHead,
    OrdinalHead,
    RegressionHead,
    Separate,
    Sluice,
    SoftParameterSharing,
    TaskHead,
)
from polytask.weighting import MGDA

TASKS = ("a", "b", "c")
TAPS = ("layers.activation1", "layers.linear2")


@pytest.fixture(autouse=True)
def double():
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.float64)
    torch.manual_seed(0)
    yield
    torch.set_default_dtype(before)


def heads():
    return {task: TaskHead(4, size) for size, task in enumerate(TASKS, start=1)}


def backbones():
    return {task: MLP(5, [6, 6], 4) for task in TASKS}


def check_equal(model, other):
    """Outputs, and gradients of corresponding parameters."""
    x = torch.randn(7, 5)
    mine, theirs = model(x), other(x)
    for task in TASKS:
        torch.testing.assert_close(mine[task], theirs[task])
    sum(output.square().sum() for output in mine.values()).backward()
    sum(output.square().sum() for output in theirs.values()).backward()
    for task in TASKS:
        one = [*model.backbones[task].parameters(), *model.heads[task].parameters()]
        for parameter, expected in zip(one, other.heads[task].parameters(), strict=True):
            torch.testing.assert_close(parameter.grad, expected.grad)


IDENTITIES = {
    "CrossStitch": lambda *parts: CrossStitch(*parts, TAPS, own=1),
    "CrossStitch-channels": lambda *parts: CrossStitch(*parts, dict.fromkeys(TAPS, 6), own=1),
    "Sluice": lambda *parts: Sluice(*parts, TAPS, own=1, subspaces=3),
    "NDDR": lambda *parts: NDDR(*parts, dict.fromkeys(TAPS, 6), own=1, norm=False),
    "LearningToBranch": lambda *parts: LearningToBranch(*parts, TAPS).eval(),
}


@pytest.mark.parametrize("scheme", IDENTITIES)
def test_identity_units_leave_the_networks_separate(scheme):
    own_heads, towers = heads(), backbones()
    other = Separate({task: nn.Sequential(towers[task], own_heads[task]) for task in TASKS})
    check_equal(copy.deepcopy(IDENTITIES[scheme](towers, own_heads)), other)


@pytest.mark.parametrize("scheme", IDENTITIES)
def test_copies_of_one_backbone_begin_as_hard_sharing(scheme):
    own_heads, backbone, x = heads(), MLP(5, [6, 6], 4), torch.randn(7, 5)
    outputs = IDENTITIES[scheme](backbone, own_heads)(x)
    expected = MultiHead(backbone, own_heads)(x)
    assert all(torch.equal(outputs[task], expected[task]) for task in TASKS)


def test_equal_units_make_one_network_of_all():
    own_heads, x = heads(), torch.randn(7, 5)
    model = CrossStitch(backbones_of(1), own_heads, ["layers.linear1"])
    with torch.no_grad():
        model.units[0].alpha.fill_(1 / 3)
    mean = torch.stack([model.backbones[task].layers.linear1(x) for task in TASKS]).mean(0)
    for task, output in model(x).items():
        layers = model.backbones[task].layers
        torch.testing.assert_close(output, own_heads[task](layers.linear2(layers.activation1(mean))))


def backbones_of(depth):
    return {task: MLP(5, [6] * depth, 4) for task in TASKS}


def by_hand(towers, mix):
    """All towers layer by layer, with ``mix`` after the first activation: from three tensors to three."""
    return lambda x: [
        tower.layers.linear2(mixed)
        for tower, mixed in zip(
            towers, mix([tower.layers.linear1(x).relu() for tower in towers]), strict=True
        )
    ]


def test_cross_stitch_by_hand():
    towers, x = backbones_of(1), torch.randn(7, 5)
    model = CrossStitch(towers, heads(), {"layers.activation1": 6})
    nn.init.normal_(model.units[0].alpha)
    alpha = model.units[0].alpha
    expected = by_hand(
        list(towers.values()),
        lambda features: [sum(a * f for a, f in zip(row, features, strict=True)) for row in alpha],
    )(x)
    for task, value in zip(TASKS, expected, strict=True):
        torch.testing.assert_close(model.represent(x)[task], value)


def test_nddr_by_hand():
    towers, x = backbones_of(1), torch.randn(7, 5)
    model = NDDR(towers, heads(), {"layers.activation1": 6})
    layers = [model.units[0].layers[task] for task in TASKS]
    for layer, _ in layers:
        nn.init.normal_(layer.weight)

    def mix(features):
        joined = torch.cat(features, 1)
        reduced = [joined @ layer.weight.T for layer, _ in layers]
        return [(r - r.mean(0)) / (r.var(0, unbiased=False) + 1e-5).sqrt() for r in reduced]

    for task, value in zip(TASKS, by_hand(list(towers.values()), mix)(x), strict=True):
        torch.testing.assert_close(model.represent(x)[task], value)


def test_nddr_on_images_is_a_convolution_of_size_one():
    x = torch.randn(3, 2, 5, 5)
    backbone = nn.Sequential(nn.Conv2d(2, 4, 3))
    model = NDDR(backbone, {task: nn.Flatten() for task in TASKS}, {"0": 4}, norm=False)
    layer = model.units[0].layers["b"][0]
    nn.init.normal_(layer.weight)
    joined = torch.cat([backbone(x)] * 3, 1)
    expected = functional.conv2d(joined, layer.weight[:, :, None, None])
    torch.testing.assert_close(model.represent(x)["b"], expected)


def test_sluice_by_hand():
    towers, x = backbones_of(1), torch.randn(7, 5)
    model = Sluice(towers, heads(), ["layers.activation1"])
    nn.init.normal_(model.units[0].alpha)
    alpha = model.units[0].alpha

    def mix(features):
        parts = [part for value in features for part in (value[:, :3], value[:, 3:])]
        mixed = [sum(a * part for a, part in zip(row, parts, strict=True)) for row in alpha]
        return [torch.cat(mixed[place : place + 2], 1) for place in range(0, len(mixed), 2)]

    for task, value in zip(TASKS, by_hand(list(towers.values()), mix)(x), strict=True):
        torch.testing.assert_close(model.represent(x)[task], value)


def test_sluice_mixes_layers_by_learned_weights():
    towers = {task: MLP(5, [4], 4, activate_output=True) for task in TASKS}
    taps, x = ["layers.activation1", "layers.activation2"], torch.randn(7, 5)
    model = Sluice(towers, heads(), taps, own=1, mix_layers=True)
    nn.init.normal_(model.layer_weights)
    for place, task in enumerate(TASKS):
        first = towers[task].layers.linear1(x).relu()
        second = towers[task].layers.linear2(first).relu()
        beta = model.layer_weights[place]
        torch.testing.assert_close(model.represent(x)[task], beta[0] * first + beta[1] * second)


def test_sluice_is_penalised_for_overlapping_subspaces():
    model = Sluice(backbones_of(1), heads(), ["layers.linear1"], orthogonality=0.5)
    weights = [model.backbones[task].layers.linear1.weight for task in TASKS]
    expected = 0.5 * sum((weight[:3] @ weight[3:].T).square().sum() for weight in weights)
    torch.testing.assert_close(model.sharing_penalty(), expected)


def test_the_outputs_of_a_transposed_convolution_are_cut_into_subspaces():
    layer = nn.ConvTranspose2d(3, 4, 2)
    model = Sluice(nn.Sequential(layer), {"a": nn.Identity()}, ["0"], orthogonality=1.0)
    # The matrix of the linear map from one pixel's channels to all values that it makes.
    one, other = layer.weight.permute(1, 0, 2, 3).flatten(1).chunk(2)
    torch.testing.assert_close(model.sharing_penalty(), (one @ other.T).square().sum())


def test_learning_to_branch_follows_the_chosen_towers():
    towers, own_heads, x = backbones_of(1), heads(), torch.randn(7, 5)
    model = LearningToBranch(towers, own_heads, ["layers.activation1"])
    with torch.no_grad():
        model.units[0].log_odds[2] = torch.tensor([5.0, 0.0, 0.0])
    model.eval()
    assert model.branches() == {"layers.activation1": {"a": "a", "b": "b", "c": "a"}}
    layers = towers["c"].layers
    expected = own_heads["c"](layers.linear2(towers["a"].layers.linear1(x).relu()))
    torch.testing.assert_close(model(x, "c"), expected)


def test_gumbel_weights_choose_as_often_as_the_odds_say():
    unit = LearningToBranch(MLP(5, [6], 4), heads(), ["layers.linear1"], temperature=1e-3).units[0]
    with torch.no_grad():
        unit.log_odds[0] = torch.tensor([0.2, 0.3, 0.5]).log()
    features = list(torch.eye(3))
    with torch.no_grad():
        chosen = torch.stack([unit(features, 0) for _ in range(4000)]).mean(0)
    torch.testing.assert_close(chosen, torch.tensor([0.2, 0.3, 0.5]), atol=0.03, rtol=0)


def test_attention_by_hand():
    backbone, x = nn.Sequential(nn.Conv2d(2, 3, 3), nn.Conv2d(3, 4, 3, stride=2)), torch.randn(3, 2, 9, 9)
    model = MTAN(backbone, {"a": nn.Flatten(), "b": nn.Flatten()}, {"0": 3, "1": 4}, norm=False)
    first, second = model.attention["b"]
    p, q = backbone[0](x), backbone[1](backbone[0](x))
    mask = torch.sigmoid(first.mask[2](first.mask[0](p).relu()))
    carried = first.carry[0](mask * p).relu()
    joined = torch.cat([q, functional.adaptive_max_pool2d(carried, q.shape[-2:])], 1)
    mask = torch.sigmoid(second.mask[2](second.mask[0](joined).relu()))
    torch.testing.assert_close(model.represent(x)["b"], second.carry[0](mask * q).relu())


# Soft sharing


class Point(nn.Module):
    """A network that is its own parameter."""

    def __init__(self, *values):
        super().__init__()
        self.at = nn.Parameter(torch.tensor(values))

    def forward(self, x):
        return self.at


def minimise(model, goals):
    """The minimum of the squared distances to the goals and the penalty."""
    options = {"max_iter": 200, "tolerance_grad": 1e-12, "tolerance_change": 1e-15}
    optimizer = torch.optim.LBFGS(model.parameters(), line_search_fn="strong_wolfe", **options)

    def loss():
        optimizer.zero_grad()
        total = sum((model.heads[task].at - goal).square().sum() for task, goal in goals.items())
        total = total + model.sharing_penalty()
        total.backward()
        return total

    for _ in range(5):
        optimizer.step(loss)
    return {task: model.heads[task].at.detach() for task in goals}


@pytest.mark.parametrize("strength", [0.0, 0.3, 1e6])
def test_the_minimum_of_soft_sharing_is_known(strength):
    goals = {"a": torch.tensor([1.0, 0.0]), "b": torch.tensor([4.0, -2.0]), "c": torch.tensor([1.0, 8.0])}
    model = SoftParameterSharing({task: Point(0.5, 0.5) for task in goals}, strength)
    found = minimise(model, goals)
    mean = torch.stack(list(goals.values())).mean(0)
    for task, goal in goals.items():
        # Stationary: θ − g + strength · T · (θ − mean) = 0, and the mean of θ is the mean of g.
        pull = strength * len(goals)
        torch.testing.assert_close(found[task], (goal + pull * mean) / (1 + pull), atol=1e-5, rtol=1e-5)


def test_soft_sharing_at_strength_zero_is_separate_training():
    networks = {task: MLP(5, [6], 1) for task in TASKS}
    soft, separate = SoftParameterSharing(copy.deepcopy(networks), 0.0), Separate(networks)
    x, y = torch.randn(8, 5), torch.randn(8, 1)
    for model in (soft, separate):
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
        for _ in range(5):
            losses = [(output - y).square().mean() for output in model(x).values()]
            total = torch.stack(losses).sum() + (model.sharing_penalty() if model is soft else 0.0)
            optimizer.zero_grad()
            total.backward()
            optimizer.step()
    for mine, theirs in zip(soft.parameters(), separate.parameters(), strict=True):
        assert torch.equal(mine, theirs)


def test_soft_sharing_at_a_very_large_strength_is_one_network():
    model = SoftParameterSharing({task: MLP(5, [6], 1) for task in TASKS}, 1e4)
    x, y = torch.randn(8, 5), torch.randn(8, 1)
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-5)
    before = spread(model)
    for _ in range(40):
        losses = [(output - place - y).square().mean() for place, output in enumerate(model(x).values())]
        optimizer.zero_grad()
        (torch.stack(losses).sum() + model.sharing_penalty()).backward()
        optimizer.step()
    assert spread(model) < 1e-3 * before


def spread(model):
    flat = [nn.utils.parameters_to_vector(model.heads[task].parameters()) for task in TASKS]
    return max(float((one - other).abs().max().detach()) for one, other in itertools.combinations(flat, 2))


def test_l2_is_the_sum_over_all_pairs():
    model = SoftParameterSharing({task: MLP(5, [6], 1) for task in TASKS}, 0.3)
    pairs = itertools.combinations([model.heads[task] for task in TASKS], 2)
    expected = 0.3 * sum(
        (one - other).square().sum()
        for first, second in pairs
        for one, other in zip(first.parameters(), second.parameters(), strict=True)
    )
    torch.testing.assert_close(model.sharing_penalty(), expected)


def test_the_trace_norm_is_the_sum_of_singular_values():
    model = SoftParameterSharing([nn.Linear(4, 3, bias=False) for _ in range(5)], 0.3, penalty="trace_norm")
    stacked = torch.stack([network.weight.flatten() for network in model.heads.children()])
    torch.testing.assert_close(model.sharing_penalty(), 0.3 * torch.linalg.svdvals(stacked).sum())


def test_the_trace_norm_of_one_direction_is_its_length():
    networks = [nn.Linear(4, 3, bias=False) for _ in range(3)]
    with torch.no_grad():
        for factor, network in enumerate(networks, start=1):
            network.weight.copy_(factor * networks[0].weight)
    length = float(networks[0].weight.norm().detach())
    found = SoftParameterSharing(networks, 1.0, penalty="trace_norm").sharing_penalty()
    assert float(found.detach()) == pytest.approx(math.sqrt(14) * length)


# Heads


def test_ordinal_probabilities_are_differences_of_logistic_functions():
    head, x = OrdinalHead(5, 4), 3 * torch.randn(9, 5)
    nn.init.normal_(head.gaps)
    score = head.layers(x)
    thresholds = head.thresholds()
    assert (thresholds.diff() > 0).all()
    below = torch.sigmoid(
        torch.cat([torch.tensor([-math.inf]), thresholds, torch.tensor([math.inf])]) - score
    )
    torch.testing.assert_close(head(x).exp(), below.diff(dim=1))


def test_cross_entropy_of_an_ordinal_head_is_its_likelihood():
    head, x, y = OrdinalHead(5, 4), torch.randn(9, 5), torch.arange(9) % 4
    torch.testing.assert_close(functional.cross_entropy(head(x), y), functional.nll_loss(head(x), y))


def test_ordinal_levels_begin_equally_likely():
    head = OrdinalHead(5, 4)
    nn.init.zeros_(head.layers.linear1.bias)
    torch.testing.assert_close(head(torch.zeros(1, 5)).exp(), torch.full((1, 4), 0.25))


@pytest.mark.parametrize("score", [-200.0, 0.0, 200.0])
def test_an_ordinal_head_is_finite_far_out(score):
    head = OrdinalHead(1, 5).float()
    with torch.no_grad():
        head.layers.linear1.weight.fill_(1.0)
    x = torch.full((1, 1), score, dtype=torch.float32, requires_grad=True)
    functional.cross_entropy(head(x), torch.tensor([2])).backward()
    assert head(x).isfinite().all()
    assert x.grad.isfinite().all()


def test_a_prior_is_the_first_probability():
    head = MultiLabelHead(5, 3, [4], prior=0.02)
    nn.init.zeros_(head.layers.linear2.weight)
    torch.testing.assert_close(head(torch.randn(2, 5)).sigmoid(), torch.full((2, 3), 0.02))


def test_bounds_are_reached_far_out_only():
    head = RegressionHead(1, low=-1.0, high=3.0)
    nn.init.ones_(head.layers.linear1.weight)
    nn.init.zeros_(head.layers.linear1.bias)
    found = head(torch.tensor([[-100.0], [0.0], [100.0]])).squeeze(1)
    torch.testing.assert_close(found, torch.tensor([-1.0, 1.0, 3.0]))


# Gradients by task


def test_the_engine_agrees_with_the_jacobian_on_towers():
    model = CrossStitch(MLP(30, [8, 8], 4), heads(), TAPS)
    explicit, x = copy.deepcopy(model), torch.randn(5, 30)
    weighting = MGDA()
    weighting.setup(TASKS)
    engine = Engine(model, weighting)
    engine.backward({task: output.square().mean() for task, output in model(x).items()})

    losses = [output.square().mean() for output in explicit(x).values()]
    parameters = dict(explicit.named_parameters())
    rows = [
        torch.autograd.grad(loss, parameters.values(), retain_graph=True, allow_unused=True)
        for loss in losses
    ]
    reached = [sum(gradient is not None for gradient in column) for column in zip(*rows, strict=True)]
    shared = [place for place, tasks in enumerate(reached) if tasks > 1]
    assert 0 < len(shared) < len(parameters)
    jacobian = torch.stack([torch.cat([row[place].flatten() for place in shared]) for row in rows])
    update = MGDA()(jacobian @ jacobian.T) @ jacobian
    found = torch.cat([list(model.parameters())[place].grad.flatten() for place in shared])
    torch.testing.assert_close(found, update)


def test_the_representation_level_says_that_towers_share_none():
    model, weighting = CrossStitch(MLP(3, [8, 8], 4), heads(), TAPS), MGDA()
    weighting.setup(TASKS)
    engine = Engine(model, weighting, level="representation")
    outputs = model(torch.randn(5, 3))
    with pytest.raises(UserError, match="'representation' requires a representation that heads share"):
        engine.backward({task: output.square().mean() for task, output in outputs.items()})
