import pytest
import torch
from torch import nn

from polytask import UserError
from polytask.models import MLP, LoRA, SimpleCNN

X = torch.rand(3, 5)


def heads():
    return {"a": nn.Linear(4, 1), "b": nn.Linear(4, 2)}


class Attention(nn.Module):
    """Uses its projection's weights without calling it."""

    def __init__(self):
        super().__init__()
        self.layer = nn.MultiheadAttention(4, 2, batch_first=True)

    def forward(self, x):
        return self.layer(x, x, x)[0]


@pytest.mark.parametrize(
    ("backbone", "rank", "targets", "options", "message"),
    [
        (MLP(5, [7], 4), 5, ["linear1"], {}, None),
        (MLP(5, [7], 4), 6, ["linear1"], {}, "targets.layers.linear1: .*size, 5, got rank 6 for 7 x 5"),
        (SimpleCNN(1, 4, 4), 10, ["features.0"], {}, "size, 9, got rank 10 for 32 x 9"),
        (
            MLP(5, [7], 4),
            2,
            ["linear3"],
            {},
            "must be a module of MLP, got 'linear3'. Did you mean 'linear",
        ),
        (MLP(5, [7], 4), 2, ["near1"], {}, "must be a module of MLP, got 'near1'"),
        (MLP(5, [7], 4), 2, ["layers"], {}, "must be a Linear or a convolution, got a Sequential"),
        (MLP(5, [7], 4), 2, ["activation1"], {}, "must be a Linear or a convolution, got a ReLU"),
        (MLP(5, [7], 4), 2, "linear1", {}, r"targets: must be a list.*Write \[linear1\]"),
        (MLP(5, [7], 4), 2, [], {}, "targets: must be a list"),
        (MLP(5, [7], 4), 0, ["linear1"], {}, "rank: must be an integer of at least 1"),
        (MLP(5, [7], 4), 2, ["linear1"], {"alpha": -1}, "alpha: must be a finite number above 0"),
        (MLP(5, [7], 4), 2, ["linear1"], {"dropout": 1.0}, "dropout: must be a finite number"),
        (
            nn.Sequential(nn.LazyLinear(4)),
            1,
            ["0"],
            {},
            "must be a layer of a known shape, got a LazyLinear before its first forward",
        ),
        (nn.Sequential(nn.ConvTranspose2d(4, 4, 3)), 1, ["0"], {}, "must be a Linear or a convolution"),
        (MLP, 1, ["0"], {}, "backbone: must be a torch.nn.Module, got the class MLP"),
    ],
)
def test_arguments(backbone, rank, targets, options, message):
    if message is None:
        assert LoRA(backbone, heads(), rank, targets, **options).rank == rank
        return
    with pytest.raises(UserError, match=message):
        LoRA(backbone, heads(), rank, targets, **options)


def test_a_layer_that_is_called_by_keyword():
    class Wrapped(nn.Module):
        def __init__(self):
            super().__init__()
            self.layer = nn.Linear(5, 4)

        def forward(self, x):
            return self.layer(input=x)

    model = LoRA(Wrapped(), heads(), 2, ["layer"])
    nn.init.normal_(model.adapters["a"][0].up)
    torch.testing.assert_close(model(X, "a"), model.merged("a")(X, "a"))


def test_a_layer_whose_weights_are_used_without_a_call_is_an_error():
    model = LoRA(Attention(), heads(), 2, ["out_proj"])
    with pytest.raises(UserError, match=r"target 'layer.out_proj': must be called"):
        model(torch.rand(2, 3, 4))


def test_the_backbone_is_frozen_unless_it_is_to_be_trained():
    frozen = LoRA(MLP(5, [7], 4), heads(), 2, ["linear1"])
    frozen(X)["a"].sum().backward()
    reached = {name for name, parameter in frozen.named_parameters() if parameter.grad is not None}
    assert reached == {
        "heads.task_a.weight",
        "heads.task_a.bias",
        "adapters.task_a.0.down",
        "adapters.task_a.0.up",
    }
    trained = LoRA(MLP(5, [7], 4), heads(), 2, ["linear1"], train_backbone=True)
    trained(X)["a"].sum().backward()
    assert all(parameter.grad is not None for parameter in trained.backbone.parameters())


def test_an_end_of_a_name_means_every_layer_of_that_name():
    backbone = nn.Sequential(MLP(5, [7], 5), MLP(5, [7], 4))
    assert LoRA(backbone, heads(), 2, ["linear1"]).targets == ("0.layers.linear1", "1.layers.linear1")
    both = LoRA(backbone, heads(), 2, ["1.layers.linear2", "layers.linear1", "linear1"])
    assert both.targets == ("0.layers.linear1", "1.layers.linear1", "1.layers.linear2")


def test_a_whole_name_means_that_module_alone():
    class Named(nn.Module):
        def __init__(self):
            super().__init__()
            self.linear1, self.block = nn.Linear(5, 5), MLP(5, [7], 4)

        def forward(self, x):
            return self.block(self.linear1(x))

    assert LoRA(Named(), heads(), 2, ["linear1"]).targets == ("linear1",)


def test_parameters_by_task_are_shown():
    model = LoRA(MLP(5, [7], 4), heads(), 2, ["linear1"])
    adapter = 2 * 5 + 7 * 2
    assert model.parameter_counts() == {"a": adapter + 5, "b": adapter + 10}
    assert f"rank=2, parameters by task: a {adapter + 5}, b {adapter + 10}" in repr(model)
    trained = sum(p.numel() for p in model.parameters() if p.requires_grad)
    assert trained == sum(model.parameter_counts().values())


def test_merging_leaves_the_model_as_it_is_and_shares_nothing_with_it():
    model = LoRA(MLP(5, [7], 4), heads(), 2, ["linear1"]).eval()
    nn.init.normal_(model.adapters["a"][0].up)
    expected = model(X)
    merged = model.merged("a")
    assert not merged.training
    assert merged.task_names == ("a",)
    with torch.no_grad():
        for parameter in merged.parameters():
            parameter.zero_()
    assert all(torch.equal(model(X)[task], expected[task]) for task in expected)


@pytest.mark.parametrize("targets", [["0"], ["2"], ["2", "0"]])
def test_a_layer_in_two_places_has_one_adapter(targets):
    layer = nn.Linear(4, 4)
    model = LoRA(nn.Sequential(layer, nn.ReLU(), layer), {"a": nn.Identity()}, 2, targets)
    assert model.targets == ("0",)
    nn.init.normal_(model.adapters["a"][0].up)
    x = torch.rand(3, 4)
    adapted = layer.weight + model.adapters["a"][0].change()
    hidden = torch.relu(nn.functional.linear(x, adapted, layer.bias))
    torch.testing.assert_close(model(x, "a"), nn.functional.linear(hidden, adapted, layer.bias))
    torch.testing.assert_close(model.merged("a")(x, "a"), model(x, "a"))


def test_merging_a_layer_whose_weights_another_one_has_too():
    backbone = nn.Sequential(nn.Linear(4, 4), nn.ReLU(), nn.Linear(4, 4))
    backbone[2].weight = backbone[0].weight
    model = LoRA(backbone, {"a": nn.Identity()}, 2, ["2"])
    nn.init.normal_(model.adapters["a"][0].up)
    x = torch.rand(3, 4)
    merged = model.merged("a")
    torch.testing.assert_close(merged(x, "a"), model(x, "a"))
    assert torch.equal(merged.backbone[0].weight, backbone[0].weight)


def test_merging_an_unknown_task():
    with pytest.raises(UserError, match="no task is called 'c'"):
        LoRA(MLP(5, [7], 4), heads(), 2, ["linear1"]).merged("c")


def test_dropout_is_for_adapters_in_training():
    model = LoRA(MLP(5, [7], 4), heads(), 2, ["linear1"], dropout=0.5)
    nn.init.normal_(model.adapters["a"][0].up)
    assert not torch.equal(model(X, "a"), model(X, "a"))
    model.eval()
    assert torch.equal(model(X, "a"), model(X, "a"))


def test_adapters_follow_the_layers_dtype():
    model = LoRA(MLP(5, [7], 4).double(), {"a": nn.Identity()}, 2, ["linear1"])
    assert model.adapters["a"][0].down.dtype is torch.float64
    assert model(X.double(), "a").dtype is torch.float64


def test_the_merged_network_exports():
    model = LoRA(SimpleCNN(1, 4, 4), heads(), 2, ["features.3"]).eval()
    x = torch.rand(2, 1, 4, 4)
    program = torch.export.export(model.merged("b"), (x, "b"))
    torch.testing.assert_close(program.module()(x, "b"), model(x, "b"))
