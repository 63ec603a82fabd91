"""Towers that exchange features: what all schemes on them have in common, and what they refuse."""

import copy
import warnings

import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader

from polytask import System, UserError
from polytask.losses import MultiTaskLoss
from polytask.models import (
    MLP,
    MTAN,
    NDDR,
    ClassificationHead,
    CrossStitch,
    LearningToBranch,
    SimpleCNN,
    Sluice,
    TaskHead,
)
from tests.errors import refusal
from tests.training import quiet_trainer

TAP = "layers.activation1"


def heads(*tasks):
    return {task: TaskHead(4, 2) for task in tasks or ("a", "b")}


SCHEMES = {
    "CrossStitch": lambda backbone, heads: CrossStitch(backbone, heads, [TAP]),
    "Sluice": lambda backbone, heads: Sluice(backbone, heads, [TAP]),
    "Sluice-mix_layers": lambda backbone, heads: Sluice(backbone, heads, [TAP], mix_layers=True),
    "NDDR": lambda backbone, heads: NDDR(backbone, heads, {TAP: 4}),
    "LearningToBranch": lambda backbone, heads: LearningToBranch(backbone, heads, [TAP]),
}
schemes = pytest.mark.parametrize("scheme", SCHEMES)


@schemes
@pytest.mark.parametrize("tasks", ["a", "abcdef"])
def test_any_number_of_tasks(scheme, tasks):
    outputs = SCHEMES[scheme](MLP(3, [4], 4), heads(*tasks))(torch.randn(5, 3))
    assert {task: tuple(output.shape) for task, output in outputs.items()} == dict.fromkeys(tasks, (5, 2))


def test_attention_for_one_task():
    model = MTAN(SimpleCNN(1, 2, 4).features, {"a": ClassificationHead(64, 2)}, {"3": 64})
    assert model(torch.randn(5, 1, 4, 4))["a"].shape == (5, 2)


@schemes
def test_towers_are_copies_with_parameters_of_their_own(scheme):
    backbone = MLP(3, [4], 4)
    model = SCHEMES[scheme](backbone, heads())
    one, other = model.backbones["a"], model.backbones["b"]
    for mine, first, second in zip(backbone.parameters(), one.parameters(), other.parameters(), strict=True):
        assert torch.equal(mine, first)
        assert torch.equal(mine, second)
        assert len({id(mine), id(first), id(second)}) == 3


def test_a_tower_nobody_needs_any_more_stands_still():
    model = CrossStitch(MLP(3, [4, 4], 4), heads(), [TAP])
    called = []
    for name, module in model.backbones["b"].layers.named_children():
        module.register_forward_pre_hook(lambda module, args, name=name: called.append(name))
    model(torch.randn(5, 3), "a")
    assert called == ["linear1", "activation1"]


def test_a_branch_leaves_towers_alone_that_it_does_not_go_on_from():
    model = LearningToBranch(MLP(3, [4], 4), heads("a", "b", "c"), [TAP])
    with torch.no_grad():
        model.units[0].log_odds[1, 2] = 9.0
    model.eval()
    called = []
    for task, tower in model.backbones.items():
        tower.layers.linear1.register_forward_pre_hook(lambda module, args, task=task: called.append(task))
    model(torch.randn(5, 3), "b")
    assert called == ["b", "c"]


def test_the_choice_of_branches_is_part_of_the_state():
    model, other = (
        LearningToBranch({task: MLP(3, [4], 4) for task in "ab"}, heads(), [TAP]).eval() for _ in range(2)
    )
    x = torch.randn(5, 3)
    before = other(x)["a"]
    with torch.no_grad():
        model.units[0].log_odds[0, 1] = 9.0
    other.load_state_dict(model.state_dict())
    chosen = other(x)["a"]
    assert not torch.equal(chosen, before)
    assert torch.equal(chosen, model(x)["a"])
    assert torch.equal(chosen, copy.deepcopy(other)(x)["a"])


@pytest.mark.parametrize("change", ["in place", "data", "load"])
def test_a_branch_follows_parameters_that_change_in_evaluation(change):
    """As averaged ones do, which a callback puts into their place for a validation."""
    model = LearningToBranch({task: MLP(3, [4], 4) for task in "ab"}, heads(), [TAP]).eval()
    odds, other = model.units[0].log_odds, torch.tensor([[0.0, 9.0], [0.0, 1.0]])
    if change == "in place":
        with torch.no_grad():
            odds.copy_(other)
    elif change == "data":
        odds.data = other
    else:
        model.load_state_dict(model.state_dict() | {"units.0.log_odds": other})
    called = []
    for task, tower in model.backbones.items():
        tower.layers.linear1.register_forward_pre_hook(lambda module, args, task=task: called.append(task))
    model(torch.randn(5, 3), "a")
    assert called == ["a", "b"]
    assert model.branches() == {TAP: {"a": "b", "b": "b"}}


@pytest.mark.parametrize("way", ["eval", "load"])
def test_an_export_has_the_branches_of_the_last_way_to_evaluation(way):
    model = LearningToBranch({task: MLP(3, [4], 4) for task in "abc"}, heads("a", "b", "c"), [TAP])
    odds = torch.eye(3)
    odds[0, 1] = 9.0
    if way == "eval":
        with torch.no_grad():
            model.units[0].log_odds.copy_(odds)
        model.eval()
    else:
        model.eval().load_state_dict(model.state_dict() | {"units.0.log_odds": odds})
    x = torch.randn(5, 3)
    program = torch.export.export(model, (x, "a"))
    torch.testing.assert_close(program.module()(x, "a"), model(x, "a"))
    products = [node for node in program.graph.nodes if node.target is torch.ops.aten.linear.default]
    # Up to the tap in two towers, the rest of one, and the head.
    assert len(products) == 4


def test_a_training_that_ends_hot_is_warned_of_with_a_decay_that_fits():
    def model(**options):
        torch.manual_seed(0)
        return LearningToBranch(MLP(3, [4], 4), heads(), [TAP], **options)

    def trained(steps, **options):
        """Through a System, as a part of a model of one's own."""
        part = model(**options)
        loss = MultiTaskLoss({"a": nn.MSELoss(), "b": nn.MSELoss()})
        system = System(nn.Sequential(part), loss, lambda groups: torch.optim.SGD(groups, lr=0.01))
        batch = torch.zeros(2, 3), {"a": torch.zeros(2, 2), "b": torch.zeros(2, 2)}
        quiet_trainer().fit(system, DataLoader([batch] * steps, batch_size=None))
        return part

    said = r"LearningToBranch: the temperature must fall to 0\.5 .* got 9\.04 at the end\. With decay=0\.631 "
    with pytest.warns(UserWarning, match=said):
        trained(10, decay=0.99)
    # Ten steps from 10 to 0.1 take a tenth root of a hundredth.
    assert pytest.approx(0.631, abs=1e-3) == 0.01**0.1
    with pytest.warns(UserWarning, match="Set decay below 1"):
        trained(2, decay=1.0)
    with warnings.catch_warnings():
        warnings.filterwarnings("error", message="LearningToBranch")
        trained(10, decay=0.63)
        trained(10, decay=0.5, lowest=2.0)


def test_the_temperature_falls_in_training_only():
    model = LearningToBranch(MLP(3, [4], 4), heads(), [TAP], temperature=4.0, decay=0.5, lowest=1.5)
    found = []
    for training in (True, False, True, True):
        model.train(training)
        model(torch.randn(5, 3))
        found.append(float(model.state_dict()["units.0.temperature"]))
    assert found == [2.0, 2.0, 1.5, 1.5]


def test_tokens_have_their_channels_last():
    x = torch.randn(5, 7, 3)
    backbone = nn.Sequential(nn.Linear(3, 4))
    for model in (
        CrossStitch(backbone, heads(), {"0": 4}, channel_dim=-1),
        NDDR(backbone, heads(), {"0": 4}, channel_dim=-1),
        Sluice(backbone, heads(), ["0"], channel_dim=-1),
    ):
        assert model(x)["a"].shape == (5, 7, 2)


def test_stitches_per_channel_are_of_the_tapped_channels():
    model = CrossStitch(MLP(3, [4], 4), heads(), {TAP: 4}, own=0.5)
    assert model.units[0].alpha.shape == (2, 2, 4)
    with torch.no_grad():
        model.units[0].alpha[0, :, 2] = 0
    x = torch.randn(5, 3)
    layers = model.backbones["a"].layers
    features = layers.activation1(layers.linear1(x)).clone()
    features[:, 2] = 0
    torch.testing.assert_close(model.represent(x)["a"], layers.linear2(features))


class Lists(nn.Module):
    def __init__(self, tuples=False, width=4):
        super().__init__()
        self.first, self.second = nn.Linear(3, width), nn.Linear(width, 4)
        self.parts = nn.ModuleList([nn.Identity()])
        self.rnn = nn.RNN(4, 4) if tuples else None

    def forward(self, x):
        x = self.second(self.first(x))
        return self.rnn(x)[0] if self.rnn is not None else x


def swapped():
    one, other = nn.Module(), nn.Module()
    for module, order in ((one, (0, 1)), (other, (1, 0))):
        module.first, module.second = nn.Linear(3, 3), nn.Linear(3, 3)
        module.order = order
        module.forward = lambda x, module=module: _in_order(module, x)
    return {"a": one, "b": other}


def _in_order(module, x):
    layers = (module.first, module.second)
    for place in module.order:
        x = layers[place](x)
    return x


def run(model):
    return model(torch.randn(5, 3))


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (
            lambda: CrossStitch(MLP(3, [4], 4), heads(), ["layers.activation2"]),
            "taps: must be a module of MLP, got 'layers.activation2'. Did you mean 'layers.activation1'?",
        ),
        (
            lambda: NDDR(MLP(3, [4], 4), heads(), [TAP]),
            "taps: must be a mapping from modules to the channels of their outputs, got "
            "['layers.activation1'].",
        ),
        (
            lambda: MTAN(MLP(3, [4], 4), heads(), [TAP]),
            "taps: must be a mapping from modules to the channels of their outputs, got "
            "['layers.activation1'].",
        ),
        (
            lambda: CrossStitch({"a": MLP(3, [4], 4)}, heads(), [TAP]),
            "backbone.b: is required, unless one module is copied for all, got none.",
        ),
        (
            lambda: CrossStitch({"a": nn.ReLU(), "c": nn.ReLU()}, heads(), [TAP]),
            "backbone: no task is called 'c'. Tasks: a, b.",
        ),
        (
            lambda: CrossStitch({"a": MLP(3, [4], 4), "b": nn.ReLU()}, heads(), [TAP]),
            "taps (b): must be a module of ReLU, got 'layers.activation1'. Modules: none.",
        ),
        (
            lambda: CrossStitch(MLP, heads(), [TAP]),
            "backbone: must be a torch.nn.Module, got the class MLP. Pass an instance.",
        ),
        (lambda: CrossStitch(MLP(3, [4], 4), {}, [TAP]), "heads: needs at least one task, got none."),
        (
            lambda: CrossStitch(MLP(3, [4], 4), heads(), [TAP], own=1.5),
            "own: must be a number from 0 to 1, got 1.5.",
        ),
        (
            lambda: Sluice(MLP(3, [4], 4), heads(), [TAP], subspaces=0),
            "subspaces: must be an integer of at least 1, got 0.",
        ),
        (
            lambda: Sluice(MLP(3, [4], 4), heads(), [TAP], orthogonality=-1),
            "orthogonality: must be a finite number of at least 0, got -1.",
        ),
        (
            lambda: Sluice(MLP(3, [4], 4), heads(), [TAP], orthogonality=0.1),
            "tap 'layers.activation1': must be a layer with a weight of 2 equal parts, for orthogonality, "
            "got a ReLU. Tap a Linear or a convolution.",
        ),
        (
            lambda: Sluice(nn.Sequential(nn.Embedding(6, 4)), heads(), ["0"], orthogonality=0.1),
            "tap '0': must be a layer with a weight of 2 equal parts, for orthogonality, got a Embedding.",
        ),
        (
            lambda: Sluice(
                nn.Sequential(nn.ConvTranspose1d(4, 4, 2, groups=2)), heads(), ["0"], orthogonality=0.1
            ),
            "tap '0': must be a layer with a weight of 2 equal parts, for orthogonality, got a "
            "ConvTranspose1d.",
        ),
        (
            lambda: LearningToBranch(MLP(3, [4], 4), heads(), [TAP], temperature=0),
            "temperature: must be a finite number above 0, got 0.",
        ),
        (
            lambda: LearningToBranch(MLP(3, [4], 4), heads(), [TAP], decay=1.1),
            "decay: must be a finite number above 0 and at most 1, got 1.1.",
        ),
        (
            lambda: run(CrossStitch(MLP(3, [4], 4), heads(), {TAP: 5})),
            "tap 'layers.activation1': features must have 5 channels, got 4 in shape (5, 4). "
            "Write layers.activation1: 4.",
        ),
        (
            lambda: run(NDDR(MLP(3, [4], 4), heads(), {TAP: 4}, channel_dim=2)),
            "tap 'layers.activation1': features must have a dimension 2 for their channels, "
            "got shape (5, 4). Set channel_dim.",
        ),
        (
            lambda: run(Sluice(MLP(3, [5], 4), heads(), [TAP])),
            "tap 'layers.activation1': channels must be a multiple of 2, got 5 in shape (5, 5).",
        ),
        (
            lambda: run(Sluice(MLP(3, [4], 6), heads(), [TAP, "layers"], mix_layers=True)),
            "tap 'layers': layers that are mixed must have features of one shape, got (5, 4) and (5, 6).",
        ),
        (
            lambda: run(CrossStitch({"a": MLP(3, [4], 4), "b": MLP(3, [5], 4)}, heads(), [TAP])),
            "tap 'layers.activation1': the towers' features must have one shape, got (5, 4) and (5, 5).",
        ),
        (
            lambda: run(CrossStitch(Lists(), heads(), ["parts"])),
            "tap 'parts': must be called in the backbone's forward, got no call.",
        ),
        (
            lambda: run(CrossStitch(Lists(tuples=True), heads(), ["rnn"])),
            "tap 'rnn': must return one tensor, got a tuple.",
        ),
        (
            lambda: run(CrossStitch(swapped(), heads(), ["first", "second"])),
            "tap 'first': tower 1 must call the same taps in the same order as tower 0, got tap 'second'.",
        ),
        (
            lambda: run(MTAN(MLP(3, [4], 4), heads(), {TAP: 4})),
            "tap 'layers.activation1': must return feature maps of shape (N, channels, height, width), "
            "got shape (5, 4).",
        ),
        (
            lambda: run(MTAN(Lists(tuples=True), heads(), {"rnn": 4})),
            "tap 'rnn': must return feature maps of shape (N, channels, height, width), got a tuple.",
        ),
    ],
)
def test_what_cannot_be_used_is_an_error(build, message):
    assert refusal(build).startswith(message)


def test_attention_needs_the_channels_it_was_made_for():
    model = MTAN(SimpleCNN(1, 2, 4).features, {"a": ClassificationHead(60, 2)}, {"3": 60})
    with pytest.raises(UserError, match=r"tap '3': features must have 60 channels, got 64 in shape"):
        model(torch.randn(5, 1, 4, 4))
