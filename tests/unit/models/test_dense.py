from functools import partial

import pytest
import torch
from torch import nn

from polytask import UserError
from polytask.models import MLP, TaskHead
from polytask.models._dense import dense


def names(layers: nn.Sequential) -> list[str]:
    return [name for name, _ in layers.named_children()]


def test_layers_in_order():
    layers = dense(4, [3, 2], 1, dropout=0.5)
    assert names(layers) == [
        "linear1",
        "activation1",
        "dropout2",
        "linear2",
        "activation2",
        "dropout3",
        "linear3",
    ]
    assert [(layer.in_features, layer.out_features) for layer in layers if isinstance(layer, nn.Linear)] == [
        (4, 3),
        (3, 2),
        (2, 1),
    ]


def test_the_only_layer_has_its_dropout_before_it():
    assert names(dense(4, None, 1, dropout=0.5)) == ["dropout1", "linear1"]
    assert names(dense(4, [], 1)) == ["linear1"]


def test_an_activated_output_ends_with_the_activation():
    assert names(dense(4, [3], 1, activate_output=True))[-1] == "activation2"


def test_a_checkpoint_loads_whatever_the_dropout():
    dense(4, [3], 1, dropout=0.5).load_state_dict(dense(4, [3], 1).state_dict())


def test_no_activation_means_relu():
    layers = dense(4, [3], 1)
    x = torch.randn(5, 4)
    assert torch.equal(layers(x), layers.linear2(layers.linear1(x).clamp(min=0)))


def test_an_instance_is_copied_for_each_layer():
    activation = nn.PReLU(init=0.3)
    layers = dense(4, [3, 3], 1, activation)
    copies = [layers.activation1, layers.activation2]
    assert [copy.weight.item() for copy in copies] == pytest.approx([0.3, 0.3])
    assert len({id(module) for module in [activation, *copies]}) == 3


@pytest.mark.parametrize("activation", [nn.LeakyReLU, partial(nn.LeakyReLU, 0.2), lambda: nn.LeakyReLU(0.1)])
def test_something_that_makes_a_module(activation):
    assert isinstance(dense(4, [3], 1, activation).activation1, nn.LeakyReLU)


@pytest.mark.parametrize(
    ("activation", "message"),
    [
        ("relu", "activation: must be a module or return one, got 'relu'. Pass a module such as"),
        (torch.relu, "activation: must return a module when called without arguments, got <built-in"),
        (dict, "activation: must return a torch.nn.Module, got a dict."),
    ],
)
@pytest.mark.parametrize("hidden", [[3], []])
def test_unusable_activation_is_an_error_with_and_without_hidden_layers(activation, message, hidden):
    with pytest.raises(UserError) as caught:
        dense(4, hidden, 1, activation)
    assert str(caught.value).startswith(message)


@pytest.mark.parametrize("build", [TaskHead, MLP])
@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"input_dim": 0}, "input_dim: must be an integer of at least 1, got 0."),
        ({"input_dim": 2.0}, "input_dim: must be an integer of at least 1, got 2.0."),
        ({"output_dim": -1}, "output_dim: must be an integer of at least 1, got -1."),
        ({"output_dim": True}, "output_dim: must be an integer of at least 1, got True."),
        ({"hidden_dims": 3}, "hidden_dims: must be a list of integers, got 3. Write [3]."),
        ({"hidden_dims": "33"}, "hidden_dims: must be a list of integers, got '33'."),
        ({"hidden_dims": [3, 0]}, "hidden_dims[1]: must be an integer of at least 1, got 0."),
        ({"dropout": 1.0}, "dropout: must be a finite number of at least 0 and below 1, got 1.0."),
        ({"dropout": -0.1}, "dropout: must be a finite number of at least 0 and below 1, got -0.1."),
        ({"dropout": float("nan")}, "dropout: must be a finite number of at least 0 and below 1, got nan."),
        ({"dropout": "0.1"}, "dropout: must be a finite number of at least 0 and below 1, got '0.1'."),
    ],
    ids=repr,
)
def test_unusable_arguments(build, given, message):
    with pytest.raises(UserError) as caught:
        build(**{"input_dim": 4, "hidden_dims": [3], "output_dim": 1} | given)
    assert str(caught.value) == message
