import copy

import pytest
import torch
from torch import nn

from polytask.models import MLP, SimpleCNN, SoftParameterSharing, create_soft_sharing_model
from tests.errors import refusal

LINEAR1 = ("layers.linear1.weight", "layers.linear1.bias")


def networks(*widths, hidden=(4,)):
    return {task: MLP(3, list(hidden), width) for task, width in zip("abcdef", widths, strict=False)}


def test_output_layers_may_differ():
    assert SoftParameterSharing(networks(5, 2)).tied == (LINEAR1,)


def test_output_layers_of_one_width_are_tied_too():
    (tied,) = SoftParameterSharing(networks(5, 5)).tied
    assert tied == (*LINEAR1, "layers.linear2.weight", "layers.linear2.bias")


def decoder(hidden, channels):
    """Transposed convolutions, whose weights have the outputs second."""
    return nn.Sequential(nn.ConvTranspose2d(3, hidden, 2), nn.ReLU(), nn.ConvTranspose2d(hidden, channels, 2))


@pytest.mark.parametrize("penalty", ["l2", "trace_norm"])
def test_output_layers_may_be_transposed_convolutions(penalty):
    model = SoftParameterSharing({"a": decoder(4, 5), "b": decoder(4, 1)}, 0.5, penalty=penalty)
    assert model.tied == (("0.weight", "0.bias"),)
    first = [network[0] for network in model.heads.children()]
    weights = torch.stack([layer.weight.flatten() for layer in first])
    biases = torch.stack([layer.bias for layer in first])
    expected = {
        "l2": lambda rows: (rows[0] - rows[1]).square().sum(),
        "trace_norm": lambda rows: torch.linalg.svdvals(rows).sum(),
    }[penalty]
    torch.testing.assert_close(model.sharing_penalty(), 0.5 * (expected(weights) + expected(biases)))


class Twice(nn.Module):
    """Uses one layer twice, by two names."""

    def __init__(self, outputs):
        super().__init__()
        self.first = nn.Linear(3, 3)
        self.second = self.first
        self.last = nn.Linear(3, outputs)


def test_a_layer_in_two_places_counts_once():
    model = SoftParameterSharing({"a": Twice(2), "b": Twice(1)}, 1.0)
    assert model.tied == (("first.weight", "first.bias"),)
    one, other = (network.first for network in model.heads.children())
    distances = [(p - q).square().sum() for p, q in zip(one.parameters(), other.parameters(), strict=True)]
    torch.testing.assert_close(model.sharing_penalty(), sum(distances))


def test_groups_share_among_themselves_only():
    made = networks(2, 2, 2, 2)
    model = SoftParameterSharing(made, 1.0, [["a", "c"], ["b"]])
    model.sharing_penalty().backward()
    assert all(parameter.grad.any() for task in "ac" for parameter in made[task].parameters())
    assert all(parameter.grad is None for task in "bd" for parameter in made[task].parameters())


def test_groups_may_have_networks_of_other_kinds():
    made = {**networks(2, 3), "c": SimpleCNN(1, 2, 4), "d": SimpleCNN(1, 5, 4)}
    first, second = SoftParameterSharing(made, 1.0, [["a", "b"], ["c", "d"]]).tied
    assert first == LINEAR1
    assert "features.0.weight" in second
    assert "classifier.2.weight" not in second


def test_equal_networks_have_no_penalty():
    network = MLP(3, [4], 2)
    model = SoftParameterSharing([network, copy.deepcopy(network)])
    assert float(model.sharing_penalty().detach()) == 0
    model.sharing_penalty().backward()
    assert all(parameter.grad.isfinite().all() for parameter in model.parameters())


@pytest.mark.parametrize("penalty", ["l2", "trace_norm"])
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision(penalty, dtype):
    torch.manual_seed(0)
    model = SoftParameterSharing(networks(2, 2), penalty=penalty)
    expected = float(model.sharing_penalty().detach())
    found = model.to(dtype).sharing_penalty()
    found.backward()
    assert float(found.detach()) == pytest.approx(expected, rel=0.02)
    assert all(parameter.grad.isfinite().all() for parameter in model.parameters())


@pytest.mark.parametrize("penalty", ["l2", "trace_norm"])
def test_the_trace_norm_of_copies_has_a_finite_gradient(penalty):
    network = MLP(3, [4], 2)
    model = SoftParameterSharing([copy.deepcopy(network) for _ in range(4)], penalty=penalty)
    model.sharing_penalty().backward()
    assert all(parameter.grad.isfinite().all() for parameter in model.parameters())


def test_one_task_alone():
    model = SoftParameterSharing(networks(2))
    assert float(model.sharing_penalty().detach()) == 0
    assert model(torch.randn(5, 3))["a"].shape == (5, 2)


@pytest.mark.parametrize("penalty", ["l2", "trace_norm"])
def test_a_task_in_a_group_of_its_own_shares_nothing(penalty):
    tasks = networks(2, 2) | {"c": nn.Identity()}
    alone = SoftParameterSharing(tasks, sharing_groups=[["a", "b"], ["c"]], penalty=penalty)
    left_out = SoftParameterSharing(tasks, sharing_groups=[["a", "b"]], penalty=penalty)
    torch.testing.assert_close(alone.sharing_penalty(), left_out.sharing_penalty())
    single = SoftParameterSharing({"a": tasks["a"]}, penalty=penalty)
    assert float(single.sharing_penalty()) == 0


def test_the_factory_passes_every_option():
    config = {"output_dim": 2, "hidden_dims": [4], "activation": nn.Tanh(), "dropout": 0.25}
    model = create_soft_sharing_model(
        3, {"a": config, "b": config}, 0.5, sharing_groups=[["b", "a"]], penalty="trace_norm"
    )
    kinds = [type(layer) for layer in model.heads["a"].layers]
    assert kinds == [nn.Linear, nn.Tanh, nn.Dropout, nn.Linear]
    assert (model.sharing_strength, model.groups, model.penalty) == (0.5, (("b", "a"),), "trace_norm")


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (
            lambda: SoftParameterSharing({"a": MLP(3, [4], 2), "b": MLP(3, [6], 2)}),
            "sharing_groups (a, b): hidden sizes must be the same, "
            "got 'layers.linear1.weight' of shape (4, 3) in 'a' and (6, 3) in 'b'.",
        ),
        (
            lambda: SoftParameterSharing({"a": MLP(3, [4, 5], 2), "b": MLP(3, [4, 6], 2)}),
            "sharing_groups (a, b): hidden sizes must be the same, "
            "got 'layers.linear2.weight' of shape (5, 4) in 'a' and (6, 4) in 'b'.",
        ),
        (
            lambda: SoftParameterSharing([decoder(4, 5), decoder(6, 1)]),
            "sharing_groups (task0, task1): hidden sizes must be the same, "
            "got '0.weight' of shape (3, 4, 2, 2) in 'task0' and (3, 6, 2, 2) in 'task1'.",
        ),
        (
            lambda: SoftParameterSharing(networks(2) | {"b": SimpleCNN(1, 2, 4)}),
            "sharing_groups (a, b): all networks must have a parameter of the same name and shape, "
            "got no name in common.",
        ),
        (
            lambda: SoftParameterSharing([nn.Linear(3, 2), nn.Linear(3, 4)]),
            "sharing_groups (task0, task1): all networks must have a parameter of the same name and shape"
            ", got 'weight' of shape (2, 3) in 'task0' and (4, 3) in 'task1'.",
        ),
        (
            lambda: SoftParameterSharing([nn.ReLU(), nn.ReLU()]),
            "sharing_groups (task0, task1): all networks must have a parameter of the same name and shape"
            ", got no name in common.",
        ),
        (
            lambda: SoftParameterSharing(networks(2, 2), -0.1),
            "sharing_strength: must be a finite number of at least 0, got -0.1.",
        ),
        (
            lambda: SoftParameterSharing(networks(2, 2), float("nan")),
            "sharing_strength: must be a finite number of at least 0, got nan.",
        ),
        (
            lambda: SoftParameterSharing(networks(2, 2), penalty="l1"),
            "penalty: must be 'l2' or 'trace_norm', got 'l1'.",
        ),
        (
            lambda: SoftParameterSharing(networks(2, 2), sharing_groups=["a", "b"]),
            "sharing_groups: must be a list of lists of tasks, got ['a', 'b']. Write [[a, b], [c]].",
        ),
        (
            lambda: SoftParameterSharing(networks(2, 2), sharing_groups=[]),
            "sharing_groups: must be a list of lists of tasks, got []. Write [[a, b], [c]].",
        ),
        (
            lambda: SoftParameterSharing(networks(2, 2), sharing_groups=[["a"], []]),
            "sharing_groups[1]: at least one task is required, got none.",
        ),
        (
            lambda: SoftParameterSharing(networks(2, 2), sharing_groups=[["a", "bb"]]),
            "sharing_groups[0]: no task is called 'bb'.",
        ),
        (
            lambda: SoftParameterSharing(networks(2, 2), sharing_groups=[["a", "b"], ["b"]]),
            "sharing_groups: a task must be in one group only, got 'b' 2 times.",
        ),
        (
            lambda: SoftParameterSharing([nn.LazyLinear(2), nn.LazyLinear(2)]),
            "task_networks.task0: all parameters must have a known shape, got 'weight' without one.",
        ),
        (
            lambda: create_soft_sharing_model(3, {"a": {"hidden_dims": [4]}}),
            "task_configs.a.output_dim: is required, got nothing.",
        ),
        (
            lambda: create_soft_sharing_model(3, {"a": {"output_dim": 2, "hiden_dims": [4]}}),
            "task_configs.a: must be an option of a task, got 'hiden_dims'. Did you mean 'hidden_dims'?",
        ),
        (
            lambda: create_soft_sharing_model(3, {"a": {"output_dim": 0}}),
            "task_configs.a.output_dim: must be an integer of at least 1, got 0.",
        ),
        (lambda: create_soft_sharing_model(3, {}), "task_configs: needs at least one task, got none."),
        (lambda: create_soft_sharing_model(3, ["a"]), "task_configs: must be a dict, got ['a']."),
    ],
)
def test_what_cannot_be_used_is_an_error(build, message):
    assert refusal(build).startswith(message)
