import functools

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.optim import SGD, Adam
from torch.optim.lr_scheduler import StepLR

from polytask import UserError
from polytask.losses import MultiTaskLoss
from polytask.models import MLP, HardParameterSharing, TaskHead
from polytask.optim import OptimizerFactory, SchedulerFactory, named_parameters, parameter_groups
from polytask.weighting import LossWeighting


class Learned(LossWeighting):
    def setup(self, names):
        super().setup(names)
        self.scale = nn.Parameter(torch.ones(len(self.names)))

    def scalar(self, losses, columns):
        return (self.scale * losses).sum()


class LearnedLoss(nn.MSELoss):
    def __init__(self):
        super().__init__()
        self.temperature = nn.Parameter(torch.ones(()))


def model():
    return HardParameterSharing(MLP(4, [3], 2), {"digit": TaskHead(2, 3), "type": TaskHead(2, 2)})


def criterion():
    return MultiTaskLoss({"digit": nn.CrossEntropyLoss(), "type": LearnedLoss()}, weighting=Learned())


def test_names_are_those_that_users_know():
    names = list(named_parameters(model(), criterion()))
    assert [name for name in names if not name.startswith("backbone.")] == [
        "heads.digit.layers.linear1.weight",
        "heads.digit.layers.linear1.bias",
        "heads.type.layers.linear1.weight",
        "heads.type.layers.linear1.bias",
        "weighting.scale",
        "criterion.task_losses.type.temperature",
    ]


def test_a_module_of_the_users_keeps_its_name():
    given = nn.ModuleDict({"task_a": nn.Linear(1, 1), "a": nn.Linear(1, 1)})
    assert len(named_parameters(given)) == 4
    assert [group["name"] for group in parameter_groups(given, {"task_a": {"lr": 1.0}})] == ["rest", "task_a"]


def test_a_name_of_the_criterions_is_refused():
    given = nn.ModuleDict({"weighting": nn.Module()})
    given["weighting"].scale = nn.Parameter(torch.ones(1))
    with pytest.raises(UserError, match=r"^model: 'weighting\.scale' is a parameter of the criterion too"):
        named_parameters(given, criterion())


def test_a_shared_parameter_is_taken_once():
    layer = nn.Linear(2, 2)
    tied = nn.Linear(2, 2)
    tied.weight = layer.weight
    given = nn.ModuleDict({"one": layer, "two": tied, "three": layer})
    (group,) = parameter_groups(given, criterion=nn.ModuleDict({"same": layer}))
    assert len(group["params"]) == 3


def test_frozen_parameters_are_left_out():
    given = model()
    given.backbone.requires_grad_(False)
    assert all(name.startswith("heads.") for name in named_parameters(given))
    with pytest.raises(
        UserError, match=r"^optimizer\.groups\.backbone: .*no trainable parameter with this prefix"
    ):
        parameter_groups(given, {"backbone": {"lr": 1.0}})
    given.requires_grad_(False)
    with pytest.raises(UserError, match="requires parameters to train"):
        parameter_groups(given)


def test_the_longest_prefix_wins():
    groups = {
        "heads": {"lr": 1.0},
        "heads.digit": {"lr": 2.0},
        "heads.digit.layers.linear1.bias": {"lr": 3.0},
    }
    found = {group["name"]: len(group["params"]) for group in parameter_groups(model(), groups, criterion())}
    backbone = len(list(model().backbone.parameters()))
    assert found == {"rest": backbone + 2, "heads": 2, "heads.digit": 1, "heads.digit.layers.linear1.bias": 1}


def test_a_prefix_ends_at_a_dot():
    given = nn.ModuleDict({"head": nn.Linear(1, 1), "header": nn.Linear(1, 1)})
    assert [len(group["params"]) for group in parameter_groups(given, {"head": {}})] == [2, 2]


def test_a_module_called_rest_is_a_group_like_others():
    given = nn.ModuleDict({"rest": nn.Linear(1, 1), "other": nn.Linear(1, 1)})
    found = [
        (len(group["params"]), group.get("lr")) for group in parameter_groups(given, {"rest": {"lr": 5.0}})
    ]
    assert found == [(2, None), (2, 5.0)]


PREFIXES = [
    "backbone",
    "heads",
    "heads.digit",
    "heads.type",
    "heads.digit.layers.linear1",
    "weighting",
    "criterion",
]


@settings(max_examples=40)
@given(st.lists(st.sampled_from(PREFIXES), unique=True))
def test_every_parameter_is_in_one_group(prefixes):
    given, loss = model(), criterion()
    groups = parameter_groups(given, {prefix: {"lr": 1.0} for prefix in prefixes}, loss)
    found = [id(parameter) for group in groups for parameter in group["params"]]
    expected = {id(parameter) for module in (given, loss) for parameter in module.parameters()}
    assert len(found) == len(expected)
    assert set(found) == expected


@pytest.mark.parametrize(
    ("groups", "message"),
    [
        (
            {"backbon": {"lr": 1}},
            "optimizer.groups.backbon: must be a prefix of parameter names, "
            "got no trainable parameter with this prefix. Did you mean 'backbone'?",
        ),
        (
            [1],
            "optimizer.groups: must be a mapping from a prefix of parameter names to options, got [1]. "
            "Write for example {backbone: {lr: 1e-4}}.",
        ),
        ("backbone", "optimizer.groups: must be a mapping from a prefix of parameter names to options, got"),
        ({"backbone": 1e-4}, "optimizer.groups.backbone: must be a mapping of options, got 0.0001"),
        (
            {"backbone": {"params": []}},
            "optimizer.groups.backbone.params: must not be an option: the group sets it",
        ),
        (
            {"backbone": {"name": "x"}},
            "optimizer.groups.backbone.name: must not be an option: the group sets it",
        ),
        (
            {"backbone": {"momentun": 1}},
            "optimizer.groups.backbone.momentun: must be an option of SGD. Did you mean 'momentum'?",
        ),
    ],
)
def test_groups_that_cannot_be(groups, message):
    with pytest.raises(UserError) as caught:
        OptimizerFactory(functools.partial(SGD, lr=0.1), groups).optimizer(model())
    assert str(caught.value).startswith(message)


def test_options_of_groups_reach_the_optimizer():
    groups = {"backbone": {"lr": 0.5}, "weighting": {"lr": 0.0, "betas": (0.5, 0.5)}}
    optimizer = OptimizerFactory(functools.partial(Adam, lr=0.1), groups).optimizer(model(), criterion())
    assert {group["name"]: group["lr"] for group in optimizer.param_groups} == {
        "rest": 0.1,
        "backbone": 0.5,
        "weighting": 0.0,
    }


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (
            functools.partial(SGD, lr=-1.0),
            "optimizer: could not be built: ValueError: Invalid learning rate",
        ),
        (functools.partial(SGD, rate=1.0), "optimizer: could not be built: TypeError"),
        (list, "optimizer: must build a torch.optim.Optimizer, got list"),
    ],
)
def test_an_optimizer_that_cannot_be_built(build, message):
    with pytest.raises(UserError) as caught:
        OptimizerFactory(build).optimizer(model())
    assert str(caught.value).startswith(message)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: OptimizerFactory("Adam"), "optimizer: must be a callable"),
        (lambda: SchedulerFactory("StepLR"), "scheduler: must be a callable"),
        (lambda: SchedulerFactory(StepLR, interval="batch"), "scheduler.interval: must be 'epoch' or 'step'"),
    ],
)
def test_factories_that_cannot_be(make, message):
    with pytest.raises(UserError, match=f"^{message}"):
        make()


def test_a_scheduler_is_made_for_the_optimizer():
    factory = SchedulerFactory(
        functools.partial(StepLR, step_size=1, gamma=0.5), "step", "val/loss/total/epoch"
    )
    optimizer = SGD(nn.Linear(1, 1).parameters(), lr=1.0)
    scheduler = factory.scheduler(optimizer)
    optimizer.step()
    scheduler.step()
    assert optimizer.param_groups[0]["lr"] == 0.5
    assert (factory.interval, factory.monitor) == ("step", "val/loss/total/epoch")


def test_schedulers_in_a_list_are_made_for_the_same_optimizer():
    optimizer = SGD(nn.Linear(1, 1).parameters(), lr=1.0)
    parts = [SchedulerFactory(functools.partial(StepLR, step_size=1, gamma=gamma)) for gamma in (0.5, 0.1)]
    build = functools.partial(torch.optim.lr_scheduler.SequentialLR, schedulers=parts, milestones=[2])
    scheduler = SchedulerFactory(build).scheduler(optimizer)
    assert all(part.optimizer is optimizer for part in scheduler._schedulers)


def test_a_scheduler_that_takes_its_optimizer_last_is_given_it_by_name():
    """The rate of two decays in a chain, in closed form."""
    optimizer = SGD(nn.Linear(1, 1).parameters(), lr=1.0)
    parts = [SchedulerFactory(functools.partial(StepLR, step_size=1, gamma=gamma)) for gamma in (0.5, 0.1)]
    for build in (
        functools.partial(torch.optim.lr_scheduler.ChainedScheduler, schedulers=parts),
        functools.partial(torch.optim.lr_scheduler.ChainedScheduler, parts),
    ):
        optimizer.param_groups[0]["lr"] = 1.0
        scheduler = SchedulerFactory(build).scheduler(optimizer)
        optimizer.step()
        scheduler.step()
        assert scheduler.optimizer is optimizer
        assert optimizer.param_groups[0]["lr"] == pytest.approx(0.05)


def halved(opt, factor):
    return StepLR(opt, step_size=1, gamma=factor)


def test_a_function_may_call_the_optimizer_as_it_likes():
    optimizer = SGD(nn.Linear(1, 1).parameters(), lr=1.0)
    scheduler = SchedulerFactory(functools.partial(halved, factor=0.5), "step").scheduler(optimizer)
    assert (scheduler.optimizer is optimizer, scheduler.gamma) == (True, 0.5)
