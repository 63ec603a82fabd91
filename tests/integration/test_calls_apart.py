"""Each call has its own values: those of an earlier validation or training are not shown again."""

import copy
import csv
import math
from contextlib import nullcontext
from functools import partial

import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader
from torchmetrics import MeanSquaredError

from polytask import System
from polytask.losses import MultiTaskLoss
from polytask.models import MLP, MultiHead
from polytask.trainer import MultiTaskTrainer
from tests.cases import LOSS_WEIGHTINGS
from tests.training import quiet_trainer

TASKS = ("a", "b", "c")


def model():
    torch.manual_seed(0)
    return MultiHead(MLP(3, [8], 4), {name: nn.Linear(4, 1) for name in TASKS})


def batch(seed, tasks=TASKS):
    x = torch.randn(8, 3, generator=torch.Generator().manual_seed(seed))
    return x, {name: x.sum(1, keepdim=True) * (i + 1) for i, name in enumerate(tasks)}


def criterion(weighting=None, **options):
    return MultiTaskLoss({name: nn.MSELoss() for name in TASKS}, weighting=weighting, **options)


def trainer_of(loss):
    net = model()
    optimizer = torch.optim.SGD([*net.parameters(), *loss.parameters()], lr=0.01)
    metrics = {name: MeanSquaredError() for name in TASKS}
    return MultiTaskTrainer(net, loss, optimizer, metric_fns=metrics)


def error(net, given, task):
    x, targets = given
    with torch.no_grad():
        return float((net(x)[task] - targets[task]).square().mean())


# ---- values of a validation -------------------------------------------------------------------


def test_validate_returns_the_values_of_its_own_data():
    ours, alone = trainer_of(criterion()), batch(1, ["a"])
    ours.fit([batch(0)], [batch(2)], epochs=1, verbose=False)
    ours.validate([batch(0)])
    with pytest.warns(UserWarning, match="no label"):
        found = ours.validate([alone])
    expected = error(ours.model, alone, "a")
    names = ("val/loss/a/epoch", "val/loss/total/epoch", "val/a/MeanSquaredError/epoch")
    unlabelled = [
        key for name in "bc" for key in (f"val/loss/{name}/epoch", f"val/{name}/MeanSquaredError/epoch")
    ]
    values = dict.fromkeys(names, expected) | dict.fromkeys(unlabelled, math.nan)
    assert found == pytest.approx(values, nan_ok=True)


@pytest.mark.parametrize("stage", ["validate", "test"])
def test_a_system_keeps_the_values_of_the_last_evaluation(stage):
    system = System(model(), criterion(), partial(torch.optim.SGD, lr=0.01))
    runner = quiet_trainer()
    prefix = "val/loss" if stage == "validate" else "test/loss"
    for tasks in (TASKS, ("c",), ("a", "b")):
        loader = DataLoader([batch(0, tasks)], batch_size=None)
        with nullcontext() if tasks == TASKS else pytest.warns(UserWarning, match="no label"):
            getattr(runner, stage)(system, loader, verbose=False)
        known = {key for key, value in system.latest.items() if not math.isnan(value)}
        assert known == {f"{prefix}/{name}/epoch" for name in (*tasks, "total")}


def test_an_epoch_without_a_validation_has_none():
    system = System(model(), criterion(), partial(torch.optim.SGD, lr=0.01))
    loader = DataLoader([batch(0)], batch_size=None)
    runner = quiet_trainer(max_epochs=3, check_val_every_n_epoch=2)
    runner.fit(system, loader, loader)
    assert not [key for key in system.latest if key.startswith("val")]
    assert system.record.epochs == {"train": 2, "val": 1}


@pytest.mark.slow
@pytest.mark.parametrize("interrupted", [False, True])
def test_lines_and_table_of_a_run_show_the_validation_of_their_epoch(demo, cli, interrupted):
    options = ["trainer.check_val_every_n_epoch=2", "trainer.max_epochs=3"]
    first = ["trainer.check_val_every_n_epoch=2"] if interrupted else options
    result = cli("fit", "config.yaml", "--run-dir", "run", *first)
    assert result.code == 0, result.err
    lines = result.out
    if interrupted:
        assert "│ val " in lines or "┃ val " in lines
        result = cli("fit", "config.yaml", "--run-dir", "run", "--resume", *options)
        assert result.code == 0, result.err
        lines += result.out
    epochs = [line for line in lines.splitlines() if line.startswith("epoch ")]
    assert [" val " in line for line in epochs] == [False, True, False]
    with open(demo / "run" / "metrics.csv") as file:
        (kept,) = [row for row in csv.DictReader(file) if row["val/loss/total/epoch"]]
    assert "val, epoch 2" in result.out
    assert f"{float(kept['val/loss/total/epoch']):.4f}" in result.out
    assert "train, epoch" not in result.out


# ---- weights of a training step ---------------------------------------------------------------


def evaluated(loss, how):
    """An own loop's validation, in one of the ways that people write."""
    net = model()
    x, targets = batch(5)
    if how == "eval":
        loss.eval()
        loss(net(x), targets)
        loss.train()
    elif how == "no_grad":
        with torch.no_grad():
            loss(net(x), targets)
    else:
        with torch.inference_mode():
            loss.eval()(net(x), {"b": targets["b"]})
        loss.train()


@pytest.mark.parametrize("how", ["eval", "no_grad", "inference of one task"])
@pytest.mark.parametrize("case", LOSS_WEIGHTINGS, ids=str)
def test_weights_after_a_validation_are_those_of_the_training(case, how):
    loss, net = criterion(case.build(), loss_weights={"b": 0.5}), model()
    for seed in range(3):
        x, targets = batch(seed)
        loss(net(x), targets).backward()
    before, state = loss.get_task_weights(), copy.deepcopy(loss.state_dict())
    evaluated(loss, how)
    assert loss.get_task_weights() == before
    torch.testing.assert_close(loss.state_dict(), state, rtol=0, atol=0, equal_nan=True)


class Own(MultiTaskLoss):
    """Weights that depend on the losses."""

    def forward(self, outputs, targets, return_dict=False):
        losses = self.compute_task_losses(outputs, targets)
        total = torch.stack(list(losses.values())).logsumexp(0)
        return (total, losses) if return_dict else total


class OwnLosses(MultiTaskLoss):
    """Losses that the base has no part in."""

    def compute_task_losses(self, outputs, targets):
        return {name: (outputs[name] - targets[name]).abs().mean() for name in targets}


@pytest.mark.parametrize("kind", [Own, OwnLosses])
@pytest.mark.parametrize("how", ["eval", "no_grad", "inference of one task"])
def test_so_are_those_of_a_subclass(kind, how):
    loss, net = kind({name: nn.MSELoss() for name in TASKS}), model()
    x, targets = batch(0)
    loss(net(x), targets, return_dict=True)
    before = loss.get_task_weights()
    evaluated(loss, how)
    assert loss.get_task_weights() == before
    assert set(before) == set(TASKS)


@pytest.mark.parametrize("case", LOSS_WEIGHTINGS, ids=str)
def test_so_are_those_of_a_trainer(case):
    ours = trainer_of(criterion(case.build()))
    ours.fit([batch(0), batch(1)], epochs=2, verbose=False)
    before = ours.get_task_weights()
    ours.validate([batch(2)])
    with pytest.warns(UserWarning, match="no label"):
        ours.validate([batch(2, ["a"])])
    assert ours.get_task_weights() == before
