import pytest
import torch
from torch import nn
from torch.utils.checkpoint import checkpoint

from polytask import UserError
from polytask.models import MLP, FiLM, SimpleCNN

X = torch.rand(3, 5)


def heads():
    return {"a": nn.Linear(4, 1), "b": nn.Linear(4, 2)}


class Skips(nn.Module):
    """Has a layer that it never calls."""

    def __init__(self):
        super().__init__()
        self.used, self.unused = nn.Linear(5, 4), nn.Linear(5, 4)

    def forward(self, x):
        return self.used(x)


@pytest.mark.parametrize(
    ("backbone", "taps", "message"),
    [
        (
            MLP(5, [7], 4),
            {"layers.linaer1": 7},
            "must be a module of MLP, got 'layers.linaer1'. Did you mean 'layers.linear1'",
        ),
        (MLP(5, [7], 4), ["layers.linear1"], "must be a mapping from modules"),
        (MLP(5, [7], 4), {"layers.linear1": 0}, "layers.linear1: must be an integer of at least 1"),
        (MLP(5, [7], 4), {}, "at least one module of the backbone is required"),
        (MLP, {"layers": 7}, "backbone: must be a torch.nn.Module, got the class MLP"),
    ],
)
def test_taps_that_cannot_be_used(backbone, taps, message):
    with pytest.raises(UserError, match=message):
        FiLM(backbone, heads(), taps)


@pytest.mark.parametrize(
    ("backbone", "taps", "options", "message"),
    [
        (MLP(5, [7], 4), {"layers.linear1": 6}, {}, r"6 channels, got 7 in shape \(3, 7\)"),
        (MLP(5, [7], 4), {"layers.linear1": 7}, {"channel_dim": 2}, "channel_dim"),
        (Skips(), {"unused": 4}, {}, "tap 'unused': must be called in the backbone's forward"),
    ],
)
def test_taps_that_do_not_fit(backbone, taps, options, message):
    with pytest.raises(UserError, match=message):
        FiLM(backbone, heads(), taps, **options)(X)


def test_tokens_have_their_channels_last():
    model = FiLM(nn.Sequential(nn.Linear(5, 4)), heads(), {"0": 4}, channel_dim=-1)
    unit = model.scales_and_shifts["a"][0]
    nn.init.normal_(unit.scale)
    x = torch.rand(2, 7, 5)
    expected = model.heads["a"](model.backbone(x) * unit.scale)
    torch.testing.assert_close(model(x, "a"), expected)


def test_the_backbone_runs_once_for_each_task_and_keeps_no_hook():
    model = FiLM(SimpleCNN(1, 4, 4), heads(), {"features.0": 32})
    counts = []
    handle = model.backbone.register_forward_pre_hook(lambda module, args: counts.append(1))
    model(torch.rand(2, 1, 4, 4))
    model(torch.rand(2, 1, 4, 4), "b")
    assert len(counts) == 3
    handle.remove()
    assert not any(module._forward_hooks for module in model.modules())


def test_a_failing_forward_leaves_no_hook():
    model = FiLM(MLP(5, [7], 4), heads(), {"layers.linear1": 6})
    with pytest.raises(UserError):
        model(X)
    assert not any(module._forward_hooks for module in model.modules())


class Saving(nn.Module):
    """Computes its first layer again in the backward."""

    def __init__(self, reentrant):
        super().__init__()
        self.one, self.two = nn.Linear(5, 7), nn.Linear(7, 4)
        self.reentrant = reentrant

    def forward(self, x):
        return self.two(checkpoint(self.one, x, use_reentrant=self.reentrant))


@pytest.mark.parametrize("reentrant", [False, True])
def test_a_tap_inside_of_a_checkpoint_is_an_error_where_gradients_are_wanted(reentrant):
    x = X.clone().requires_grad_()
    model = FiLM(Saving(reentrant), heads(), {"one": 7})
    with pytest.raises(UserError, match="tap 'one': must not be inside an activation checkpoint"):
        model(x)
    with torch.no_grad():
        assert torch.equal(model(x, "a"), model.heads["a"](model.backbone(x)))
    FiLM(Saving(reentrant), heads(), {"two": 4})(x, "a").sum().backward()


def test_tasks_part_once_their_scales_do():
    model = FiLM(MLP(5, [7], 4), {"a": nn.Identity(), "b": nn.Identity()}, {"layers.linear1": 7})
    assert torch.equal(*model(X).values())
    nn.init.normal_(model.scales_and_shifts["a"][0].scale)
    assert not torch.allclose(*model(X).values())
