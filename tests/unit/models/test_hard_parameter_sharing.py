import pytest
import torch
from torch import nn

from polytask import UserError
from polytask.models import MLP, HardParameterSharing, TaskHead, create_hard_sharing_model


def test_the_shared_layer_is_a_linear_layer_with_relu():
    model, x = HardParameterSharing(MLP(4, [], 3), [TaskHead(5, 1)], shared_head_dim=5), torch.randn(6, 4)
    linear = next(layer for layer in model.shared_head.modules() if isinstance(layer, nn.Linear))
    assert torch.equal(model.represent(x), linear(model.backbone(x)).clamp(min=0))


def test_without_shared_layer_the_backbone_is_the_representation():
    model, x = HardParameterSharing(MLP(4, [], 3), [TaskHead(3, 1)]), torch.randn(6, 4)
    assert model.shared_head is None
    assert torch.equal(model.represent(x), model.backbone(x))


def test_a_backbone_without_output_dim_is_told_its_size():
    heads = {"a": TaskHead(5, 1)}
    model = HardParameterSharing(nn.Linear(4, 3), heads, 5, representation_dim=3)
    assert model(torch.randn(6, 4))["a"].shape == (6, 1)


def test_the_size_given_goes_before_the_size_read():
    backbone = nn.Linear(4, 3)
    backbone.output_dim = 7
    assert create_hard_sharing_model(backbone, {"a": {"output_dim": 1}}, representation_dim=3)(
        torch.randn(6, 4), "a"
    ).shape == (6, 1)


def test_any_module_may_be_a_head():
    model = HardParameterSharing(nn.Flatten(), {"a": nn.LazyLinear(2)})
    assert model(torch.rand(3, 2, 2))["a"].shape == (3, 2)


def test_the_factory_passes_every_option():
    options = {"output_dim": 2, "hidden_dims": [6], "activation": nn.Tanh(), "dropout": 0.25}
    head = create_hard_sharing_model(MLP(4, [], 3), {"a": options}).heads["a"]
    kinds = [type(layer) for layer in head.layers]
    assert kinds == [nn.Linear, nn.Tanh, nn.Dropout, nn.Linear]
    assert (head.layers.linear1.out_features, head.layers.dropout2.p, head.output_dim) == (6, 0.25, 2)


def test_the_factory_sizes_heads_by_the_shared_layer():
    model = create_hard_sharing_model(MLP(4, [], 3), {"a": {"output_dim": 2}}, 8)
    assert model.heads["a"].input_dim == 8


def test_the_factory_leaves_the_configuration_as_it_was():
    config = {"a": {"output_dim": 2}}
    create_hard_sharing_model(MLP(4, [], 3), config)
    assert config == {"a": {"output_dim": 2}}


NO_SIZE = (
    "backbone: must have an attribute output_dim, the size of its representation, got no output_dim. "
    "Pass representation_dim, the number of features it returns."
)


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: HardParameterSharing(nn.Linear(4, 3), [TaskHead(5, 1)], 5), NO_SIZE),
        (lambda: create_hard_sharing_model(nn.Linear(4, 3), {"a": {"output_dim": 1}}), NO_SIZE),
        (
            lambda: HardParameterSharing(MLP(4, [], 3), {"a": TaskHead(5, 1)}),
            "task_heads.a: input_dim must be 3, the features of the representation, got 5.",
        ),
        (
            lambda: HardParameterSharing(MLP(4, [], 3), {"a": TaskHead(3, 1)}, 5),
            "task_heads.a: input_dim must be 5, the features of the representation, got 3.",
        ),
        (
            lambda: HardParameterSharing(MLP(4, [], 3), {"a": TaskHead(3, 1)}, 0),
            "shared_head_dim: must be an integer of at least 1, got 0.",
        ),
        (
            lambda: HardParameterSharing(MLP(4, [], 3), {"a": TaskHead(3, 1)}, representation_dim="3"),
            "representation_dim: must be an integer of at least 1, got '3'.",
        ),
        (lambda: HardParameterSharing(MLP(4, [], 3), {}), "task_heads: needs at least one task, got none."),
        (
            lambda: create_hard_sharing_model(MLP, {"a": {"output_dim": 1}}),
            "backbone: must be a torch.nn.Module, got the class MLP. Pass an instance.",
        ),
    ],
)
def test_what_does_not_fit_is_an_error(build, message):
    with pytest.raises(UserError) as caught:
        build()
    assert str(caught.value) == message


@pytest.mark.parametrize(
    ("configs", "message"),
    [
        ({}, "task_configs: needs at least one task, got none."),
        ([{"output_dim": 1}], "task_configs: must be a dict, got [{'output_dim': 1}]."),
        ({"loss": {"output_dim": 1}}, "task_configs: 'loss' is reserved for log keys. Rename the task."),
        ({"a": 10}, "task_configs.a: must be a dict, got 10."),
        ({"a": {}}, "task_configs.a.output_dim: is required, got nothing. Set the task's number of outputs."),
        (
            {"a": {"output_dim": 1, "hidden_dim": [4]}},
            "task_configs.a: must be an option of a task, got 'hidden_dim'. Did you mean 'hidden_dims'?",
        ),
        (
            {"a": {"output_dim": 0}},
            "task_configs.a.output_dim: must be an integer of at least 1, got 0.",
        ),
        (
            {"a": {"output_dim": 1, "hidden_dims": [4, "5"]}},
            "task_configs.a.hidden_dims[1]: must be an integer of at least 1, got '5'.",
        ),
    ],
    ids=repr,
)
def test_an_unusable_configuration_is_an_error_with_the_task(configs, message):
    with pytest.raises(UserError) as caught:
        create_hard_sharing_model(MLP(4, [], 3), configs)
    assert str(caught.value) == message


def test_a_backbone_that_returns_another_size_is_an_error_with_both_shapes():
    model = create_hard_sharing_model(nn.Identity(), {"a": {"output_dim": 1}}, 5, representation_dim=3)
    with pytest.raises(UserError, match=r"shape \(\.\.\., 3\) for this head, got shape \(6, 4\)"):
        model(torch.zeros(6, 4))
