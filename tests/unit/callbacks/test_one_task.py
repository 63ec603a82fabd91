"""A run of one task: bit for bit the training of a model that has no other task."""

import copy
import functools

import pytest
import torch
from torch import nn

from polytask import System, UserError
from polytask.callbacks import OneTask
from polytask.data import ReplayableLoader
from polytask.losses import MultiTaskLoss
from polytask.models import MLP, HardParameterSharing, SoftParameterSharing
from polytask.weighting import Fixed
from tests.training import quiet_trainer

NAMES = ("a", "b")


class Counting(nn.Linear):
    """How often it was called in training."""

    calls = 0

    def forward(self, x):
        self.calls += self.training
        return super().forward(x)


class Plain(nn.Module):
    """A model that knows nothing of chosen tasks."""

    def __init__(self, names):
        super().__init__()
        self.backbone = nn.Sequential(nn.Linear(3, 6), nn.BatchNorm1d(6), nn.ReLU())
        self.heads = nn.ModuleDict({name: Counting(6, 1) for name in names})

    def forward(self, x):
        shared = self.backbone(x)
        return {name: head(shared) for name, head in self.heads.items()}


def sharing(names):
    backbone = nn.Sequential(nn.Linear(3, 6), nn.BatchNorm1d(6), nn.ReLU())
    return HardParameterSharing(backbone, {name: Counting(6, 1) for name in names})


def batches(names, unlabelled=()):
    """Batches of four rows; b is missing throughout in some, and infinite in the last."""
    draw = torch.Generator().manual_seed(0)
    found = []
    for number in range(6):
        x = torch.randn(4, 3, generator=draw)
        targets = {name: torch.randn(4, 1, generator=draw) for name in NAMES}
        for name, missing in unlabelled:
            if number == missing:
                targets[name][:] = torch.nan
        found.append((x, {name: targets[name] for name in names}))
    return found


def trained(model, names, callbacks=(), data=None, weights=None):
    weighting = Fixed(weights or {"a": 1.0})
    criterion = MultiTaskLoss({name: nn.MSELoss() for name in names}, weighting=weighting)
    system = System(model, criterion, functools.partial(torch.optim.AdamW, lr=0.05, weight_decay=0.1))
    system.dataloaders = {"train": ReplayableLoader(data), "val": ReplayableLoader(data)}
    trainer = quiet_trainer(
        max_epochs=2,
        gradient_clip_val=1.0,
        callbacks=[*callbacks],
        num_sanity_val_steps=0,
    )
    trainer.fit(system)
    return system


@pytest.mark.parametrize("make", [sharing, Plain])
@pytest.mark.parametrize("unlabelled", [(), (("a", 2), ("b", 4))])
def test_it_equals_a_model_of_that_task_alone(make, unlabelled):
    joint = make(NAMES)
    alone = make(("a",))
    alone.load_state_dict(
        {
            key: value
            for key, value in joint.state_dict().items()
            if not key.startswith(("heads.b.", "heads.task_b."))
        }
    )
    before = copy.deepcopy(joint.heads["b"].state_dict())
    single = trained(joint, NAMES, [OneTask("a")], batches(NAMES, unlabelled), {"a": 1.0, "b": 0.0})
    other = trained(alone, ("a",), (), batches(("a",), unlabelled))
    assert single.skipped == other.skipped
    for key, value in alone.state_dict().items():
        assert torch.equal(joint.state_dict()[key], value), key
    # Nothing reached the other head, not even weight decay.
    for key, value in joint.heads["b"].state_dict().items():
        assert torch.equal(before[key], value)


def test_only_the_task_is_computed_in_training_and_all_are_measured():
    model, free = sharing(NAMES), Plain(NAMES)
    found = trained(model, NAMES, [OneTask("a")], batches(NAMES), {"a": 1.0, "b": 0.0})
    assert (model.heads["a"].calls, model.heads["b"].calls) == (12, 0)
    assert {"val/loss/a/epoch", "val/loss/b/epoch"} < found.latest.keys()
    trained(free, NAMES, [OneTask("a")], batches(NAMES), {"a": 1.0, "b": 0.0})
    assert free.heads["b"].calls == 12
    # Afterwards the model computes all of its tasks again.
    assert set(model.train()(torch.zeros(2, 3))) == set(NAMES)


def test_another_tasks_loss_that_is_not_finite_does_not_matter():
    data = batches(NAMES)
    data[3][1]["b"][:] = torch.inf
    model = sharing(NAMES)
    system = System(
        model,
        MultiTaskLoss({name: nn.MSELoss() for name in NAMES}, weighting=Fixed({"a": 1.0, "b": 0.0})),
        functools.partial(torch.optim.SGD, lr=0.1),
    )
    system.dataloaders = {"train": ReplayableLoader(data)}
    quiet_trainer(callbacks=[OneTask("a")]).fit(system)
    assert all(value.isfinite().all() for value in model.state_dict().values())


def test_towers_that_are_kept_alike_are_let_go():
    model = SoftParameterSharing({name: MLP(3, [4], 1) for name in NAMES})
    before = copy.deepcopy(model.state_dict())
    trained(model, NAMES, [OneTask("a")], batches(NAMES), {"a": 1.0, "b": 0.0})
    changed = {key for key, value in model.state_dict().items() if not torch.equal(before[key], value)}
    assert changed == {key for key in before if key.startswith("heads.task_a.")}
    assert changed


def test_an_unknown_task_has_its_nearest_name():
    with pytest.raises(UserError, match=r"OneTask\.task.*Tasks: a, b"):
        trained(sharing(NAMES), NAMES, [OneTask("c")], batches(NAMES), {"a": 1.0, "b": 0.0})
