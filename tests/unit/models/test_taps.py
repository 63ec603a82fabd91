"""Forwards that stop at taps and go on."""

import copy
import gc
import weakref

import pytest
import torch
from torch import nn
from torch.nn import functional
from torch.utils.checkpoint import checkpoint

from polytask import UserError
from polytask.models._taps import StagedForward, check_channels, check_taps, features_at


class Block(nn.Module):
    """A residual block that adds in place, as torchvision's do."""

    def __init__(self, width, stride=1):
        super().__init__()
        self.conv1 = nn.Conv2d(width, width, 3, padding=1)
        self.bn1 = nn.BatchNorm2d(width)
        self.relu = nn.ReLU(inplace=True)
        self.conv2 = nn.Conv2d(width, width, 3, padding=1)

    def forward(self, x):
        out = self.conv2(self.relu(self.bn1(self.conv1(x))))
        out += x
        return self.relu(out)


class Residual(nn.Module):
    """Blocks in lists, a connection around all of them, functions between modules, a module used twice."""

    def __init__(self):
        super().__init__()
        self.stem = nn.Conv2d(2, 4, 3, padding=1)
        self.stages = nn.ModuleList([nn.Sequential(Block(4), Block(4)), nn.Sequential(Block(4))])
        self.norm = nn.GroupNorm(2, 4)
        self.drop = nn.Dropout(0.5)

    def forward(self, x):
        x = functional.relu(self.stem(x))
        around = x
        for stage in self.stages:
            x = self.norm(stage(x))
        return self.drop(x + around).mean((2, 3))


class Tokens(nn.Module):
    """Attention, which gives a tuple, and arguments by name."""

    def __init__(self):
        super().__init__()
        self.attention = nn.MultiheadAttention(4, 2, batch_first=True)
        self.encoder = nn.TransformerEncoderLayer(4, 2, 8, batch_first=True)

    def forward(self, x):
        x = x + self.attention(query=x, key=x, value=x)[0]
        return self.encoder(x).mean(1)


BACKBONES = [
    (Residual, ["stages.0.0.bn1", "stages.0.1", "norm", "stages.1.0.conv2"], (2, 5, 5)),
    (Residual, ["stem"], (2, 5, 5)),
    (Residual, ["stages.0.0.conv1", "stages.0.0", "stages.0"], (2, 5, 5)),
    (Tokens, ["encoder.linear1", "encoder"], (3, 4)),
]


def through(backbone, taps, x, change=lambda value: value):
    forward = StagedForward(backbone, taps, x)
    passed = []
    tap, value = forward.advance()
    while tap is not None:
        passed.append(tap)
        forward.resume(change(value))
        tap, value = forward.advance()
    return value, passed


@pytest.mark.parametrize(("make", "taps", "shape"), BACKBONES)
def test_a_walk_is_the_forward(make, taps, shape):
    torch.manual_seed(0)
    backbone, x = make().double(), torch.randn(3, *shape, dtype=torch.float64)
    other = copy.deepcopy(backbone)
    torch.manual_seed(1)
    expected = other(x)
    torch.manual_seed(1)
    output, passed = through(backbone, taps, x)
    assert torch.equal(output, expected)
    assert set(passed) == set(taps)
    output.square().sum().backward()
    expected.square().sum().backward()
    for mine, theirs in zip(backbone.parameters(), other.parameters(), strict=True):
        torch.testing.assert_close(mine.grad, theirs.grad)
    for mine, theirs in zip(backbone.buffers(), other.buffers(), strict=True):
        assert torch.equal(mine, theirs)


def test_what_is_handed_on_takes_the_place_of_the_output():
    backbone = nn.Sequential(nn.Linear(2, 2), nn.ReLU(), nn.Linear(2, 2))
    x = torch.randn(3, 2)
    output, _ = through(backbone, ["0"], x, lambda value: 3 * value)
    torch.testing.assert_close(output, backbone[2]((3 * backbone[0](x)).relu()))


@pytest.mark.parametrize("mode", [torch.inference_mode, torch.no_grad])
def test_a_walk_without_gradients(mode):
    backbone = Residual().eval()
    x = torch.randn(3, 2, 5, 5)
    with mode():
        assert torch.equal(through(backbone, ["stages.0", "norm"], x)[0], backbone(x))


def test_no_module_runs_twice():
    backbone = Residual()
    forwards = []
    for module in backbone.modules():
        if not list(module.children()):
            own = module.forward
            module.forward = lambda *args, own=own, module=module: forwards.append(module) or own(*args)
    through(backbone, ["stages.0.0.conv1", "stages.0.1", "norm"], torch.randn(2, 2, 5, 5))
    walked = list(forwards)
    forwards.clear()
    backbone(torch.randn(2, 2, 5, 5))
    assert walked == forwards


def test_hooks_are_called_once_and_keep_their_say():
    backbone, x = Residual(), torch.randn(2, 2, 5, 5)
    calls = []
    for name, module in backbone.named_modules():
        module.register_forward_hook(lambda module, args, output, name=name: calls.append(name))
    backbone.norm.register_forward_hook(lambda module, args, output: 2 * output)
    taps = ["stages.0.0.conv1", "stages.0", "stages.1.0.conv2"]
    torch.manual_seed(0)
    output, _ = through(backbone, taps, x)
    walked = sorted(calls)
    calls.clear()
    torch.manual_seed(0)
    torch.testing.assert_close(output, backbone(x))
    assert walked == sorted(calls)


def test_the_backbone_is_left_as_it_was():
    backbone = nn.Sequential(nn.Linear(2, 2), nn.ReLU())
    own = backbone[1].forward = lambda x: x + 1
    before = [dict(module.__dict__) for module in backbone.modules()]
    forward = StagedForward(backbone, ["0"], torch.randn(3, 2))
    forward.advance()
    assert [dict(module.__dict__) for module in backbone.modules()] == before
    assert backbone[1].forward is own
    with pytest.raises(RuntimeError):
        StagedForward(backbone, ["0"], torch.randn(3, 5)).advance()
    assert [dict(module.__dict__) for module in backbone.modules()] == before
    assert nn.Module.__call__ is nn.Module._wrapped_call_impl


def test_nothing_is_kept_after_a_walk():
    backbone, x = Residual(), torch.randn(2, 2, 5, 5)
    gc.collect()
    gc.disable()
    try:
        output, _ = through(backbone, ["stages.0", "norm"], x)
        features = features_at(backbone, ["stages.0"], x)
        kept = [weakref.ref(output), *map(weakref.ref, features)]
        del output, features
        assert [reference() for reference in kept] == [None, None]
        assert not [found for found in gc.get_objects() if type(found) is StagedForward]
    finally:
        gc.enable()


class Saving(nn.Module):
    """Computes its second layer again in the backward."""

    def __init__(self, reentrant):
        super().__init__()
        self.one, self.two, self.three = nn.Linear(4, 4), nn.Linear(4, 4), nn.Linear(4, 4)
        self.reentrant = reentrant

    def forward(self, x):
        inner = lambda x: torch.tanh(self.two(torch.tanh(x)))  # noqa: E731
        return self.three(checkpoint(inner, self.one(x), use_reentrant=self.reentrant))


both = pytest.mark.parametrize("reentrant", [False, True])


@both
def test_checkpointing_beside_taps(reentrant):
    backbone, x = Saving(reentrant), torch.randn(4, 4)
    other = copy.deepcopy(backbone)
    output, passed = through(backbone, ["one", "three"], x, lambda value: 2 * value)
    assert passed == ["one", "three"]
    output.sum().backward()
    (2 * other.three(torch.tanh(other.two(torch.tanh(2 * other.one(x)))))).sum().backward()
    for mine, theirs in zip(backbone.parameters(), other.parameters(), strict=True):
        torch.testing.assert_close(mine.grad, theirs.grad)


@pytest.mark.filterwarnings("ignore:None of the inputs have requires_grad")
@both
def test_a_tap_inside_of_a_checkpoint_is_an_error_where_gradients_are_wanted(reentrant):
    backbone, x = Saving(reentrant), torch.randn(4, 4, requires_grad=True)
    with pytest.raises(UserError, match="tap 'two': must not be inside an activation checkpoint"):
        through(backbone, ["two"], x)
    with torch.no_grad():
        output, _ = through(backbone, ["two"], x)
    assert torch.equal(output, backbone(x))


def test_evaluation_of_a_transformer_layer_calls_its_modules():
    backbone, x = Tokens().eval(), torch.randn(3, 3, 4)
    with torch.no_grad():
        output, passed = through(backbone, ["encoder.linear1"], x)
        torch.testing.assert_close(output, backbone(x))
    assert passed == ["encoder.linear1"]
    assert torch.backends.mha.get_fastpath_enabled()


class InPlace(nn.Module):
    """Changes in place, between modules, what goes around the second tap."""

    def __init__(self):
        super().__init__()
        self.one, self.two = nn.Linear(2, 2), nn.Linear(2, 2)

    def forward(self, x):
        x = self.one(x)
        x += 1
        return x + self.two(x.detach())


def test_a_change_in_place_between_taps_is_an_error():
    with pytest.raises(UserError, match=r"must not change features in place.*Write x = x \+ y"):
        through(InPlace(), ["one", "two"], torch.randn(3, 2))


def test_a_change_in_place_that_is_not_repeated_is_none():
    backbone, x = InPlace(), torch.randn(3, 2)
    expected = backbone(x)
    assert torch.equal(through(backbone, ["one"], x)[0], expected)


class Fickle(nn.Module):
    """Takes another way at every second call."""

    def __init__(self):
        super().__init__()
        self.layers = nn.ModuleList([nn.Linear(2, 2) for _ in range(3)])
        self.calls = 0

    def forward(self, x):
        self.calls += 1
        for layer in self.layers[self.calls % 2 :]:
            x = layer(x)
        return x


def test_another_way_through_the_modules_is_an_error():
    with pytest.raises(UserError, match="the same modules in the same order"):
        through(Fickle(), ["layers.2"], torch.randn(3, 2))


def test_a_tap_that_is_not_called_is_an_error():
    with pytest.raises(UserError, match="tap 'stages': must be called in the backbone's forward"):
        through(Residual(), ["stem", "stages"], torch.randn(1, 2, 5, 5))


def test_features_stop_at_the_last_tap():
    backbone = nn.Sequential(nn.Linear(2, 3), nn.ReLU(), nn.Linear(3, 4))
    called = []
    backbone[2].register_forward_pre_hook(lambda module, args: called.append(module))
    x = torch.randn(5, 2)
    one, two = features_at(backbone, ["0", "1"], x)
    assert torch.equal(one, backbone[0](x))
    assert torch.equal(two, one.relu())
    assert not called


def test_taps_out_of_order_are_an_error():
    with pytest.raises(UserError, match=r"listed in the order of their calls.*a call of '0' before '1'"):
        features_at(nn.Sequential(nn.ReLU(), nn.ReLU()), ["1", "0"], torch.ones(1))


class Aliased(nn.Module):
    """A module in two places, called by the second one."""

    def __init__(self):
        super().__init__()
        self.first, self.last = nn.Linear(2, 2), nn.Linear(2, 2)
        self.second = self.first

    def forward(self, x):
        return self.last(self.second(x))


def test_a_module_in_two_places_is_tapped_by_either_name():
    backbone, x = Aliased(), torch.randn(3, 2)
    for name in ("first", "second"):
        (found,) = features_at(backbone, check_taps(backbone, [name]), x)
        assert torch.equal(found, backbone.first(x))


def test_a_module_in_two_places_is_tapped_once():
    with pytest.raises(UserError, match=r"tapped once only, got 'second' and 'first', which are one"):
        check_taps(Aliased(), ["second", "first"])


@pytest.mark.parametrize(
    ("taps", "message"),
    [
        (
            ["stage.0"],
            "taps: must be a module of Residual, got 'stage.0'. Did you mean 'stages.0'?",
        ),
        (["stem", "stem"], "taps: a module must be tapped once only, got 'stem' twice."),
        ([], "taps: at least one module of the backbone is required, got none. Modules: stem, stages, "),
        ("stem", "taps: must be a list of module names, got 'stem'. Write [stem]."),
        (
            ["zzzzzzzzzz"],
            "taps: must be a module of Residual, got 'zzzzzzzzzz'. Modules: stem, ",
        ),
        ([""], "taps: must be a module of Residual, got ''. Modules: stem, "),
        ([3], "taps: must be a module of Residual, got 3. Modules: stem, "),
        (7, "taps: must be a list of module names, got 7."),
    ],
    ids=repr,
)
def test_unusable_taps(taps, message):
    with pytest.raises(UserError) as caught:
        check_taps(Residual(), taps)
    assert str(caught.value).startswith(message)


@pytest.mark.parametrize(
    ("taps", "message"),
    [
        (
            ["stem"],
            "taps: must be a mapping from modules to the channels of their outputs, got ['stem']. "
            "Write {layer1: 64",
        ),
        ({"stem": 0}, "taps.stem: must be an integer of at least 1, got 0."),
        ({"stem": "4"}, "taps.stem: must be an integer of at least 1, got '4'."),
    ],
    ids=repr,
)
def test_unusable_channels(taps, message):
    with pytest.raises(UserError) as caught:
        check_channels(taps)
    assert str(caught.value).startswith(message)
