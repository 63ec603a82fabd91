"""What selects an epoch: a total that no weighting changes, whatever the weighting and whoever trains."""

import csv
from functools import partial

import numpy as np
import pytest
import pytorch_lightning as pl
import torch
from torch import nn
from torch.utils.data import DataLoader

from polytask import System
from polytask.losses import MultiTaskLoss
from polytask.models import MLP, MultiHead
from polytask.trainer import MultiTaskTrainer
from polytask.weighting import RLW, UW, Equal, LossWeighting
from tests.cases import LOSS_WEIGHTINGS, WEIGHTINGS
from tests.training import quiet_trainer

FACTORS = {"a": 0.5, "b": 1.0, "c": 3.0}


def model():
    torch.manual_seed(0)
    return MultiHead(MLP(3, [8], 4), {name: nn.Linear(4, 1) for name in FACTORS})


def rows(seed):
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(12, 3, generator=generator)
    noise = torch.randn(12, 3, generator=generator)
    return [(x[i], {name: x[i, :1] + noise[i, j] for j, name in enumerate(FACTORS)}) for i in range(12)]


def losses():
    return {name: nn.MSELoss() for name in FACTORS}


def fitted(criterion, batches_per_step=1, callbacks=(), epochs=1):
    """The values that callbacks saw."""
    runner = quiet_trainer(
        accumulate_grad_batches=batches_per_step,
        max_epochs=epochs,
        callbacks=list(callbacks),
        num_sanity_val_steps=0,
    )
    system = System(model(), criterion, partial(torch.optim.SGD, lr=0.01))
    runner.fit(system, DataLoader(rows(0), 4), DataLoader(rows(1), 12))
    return {key: float(value) for key, value in runner.callback_metrics.items()}


def check_totals(values, stages=("train", "val"), factors=FACTORS):
    for stage in stages:
        expected = sum(factor * values[f"{stage}/loss/{name}/epoch"] for name, factor in factors.items())
        assert values[f"{stage}/loss/total/epoch"] == pytest.approx(expected)


@pytest.mark.parametrize("case", WEIGHTINGS, ids=str)
def test_no_weighting_changes_the_total(case):
    weighting = case.build()
    values = fitted(MultiTaskLoss(losses(), FACTORS, weighting=weighting), weighting.batches_per_step)
    check_totals(values)
    shown = isinstance(weighting, LossWeighting) and not isinstance(weighting, Equal)
    assert ("val/objective/epoch" in values) == ("train/objective/epoch" in values) == shown


class Scalars(pl.Callback):
    """What the weighting makes of the losses of each validation."""

    def __init__(self):
        self.found = []

    def on_validation_end(self, trainer, pl_module):
        losses = [pl_module.latest[f"val/loss/{name}/epoch"] * factor for name, factor in FACTORS.items()]
        with torch.no_grad():
            self.found.append(float(pl_module.criterion.weighting(torch.tensor(losses))))


@pytest.mark.parametrize("case", LOSS_WEIGHTINGS, ids=str)
def test_the_scalar_of_a_weighting_has_a_key_of_its_own(case):
    scalars = Scalars()
    values = fitted(MultiTaskLoss(losses(), FACTORS, weighting=case.build()), callbacks=[scalars], epochs=3)
    objective = values.get("val/objective/epoch", values["val/loss/total/epoch"])
    assert objective == pytest.approx(scalars.found[-1], rel=1e-5)


def test_the_total_of_one_model_stays_while_random_weights_move():
    """From Python, with one trainer and a model that does not learn."""
    net, criterion = model(), MultiTaskLoss(losses(), weighting=RLW(seed=0))
    ours = MultiTaskTrainer(net, criterion, torch.optim.SGD(net.parameters(), lr=0.0))
    history = ours.fit(DataLoader(rows(0), 12), DataLoader(rows(1), 12), epochs=4, verbose=False)
    assert len(set(history["val/loss/total/epoch"])) == 1
    assert len(set(history["val/objective/epoch"])) == 4
    with torch.no_grad():
        outputs = net(torch.stack([x for x, _ in rows(1)]))
    targets = {name: torch.stack([target[name] for _, target in rows(1)]) for name in FACTORS}
    expected = sum(float((outputs[name] - targets[name]).square().mean()) for name in FACTORS)
    assert history["val/loss/total/epoch"][0] == pytest.approx(expected)


# ---- criteria of one's own --------------------------------------------------------------------


class Learned(nn.Module):
    """An uncertainty weighting that is not ours: its total falls without bound."""

    def __init__(self, total_alone=False):
        super().__init__()
        self.log_vars = nn.Parameter(torch.zeros(3))
        self.total_alone = total_alone

    def forward(self, outputs, targets):
        found = {name: (outputs[name] - targets[name]).square().mean() for name in FACTORS}
        stacked = torch.stack(list(found.values()))
        total = (torch.exp(-self.log_vars) * stacked + self.log_vars).sum() - 5
        return total if self.total_alone else {**found, "total": total}


class Constant(nn.Module):
    """A total with constant weights, which is comparable."""

    def forward(self, outputs, targets):
        found = {name: (outputs[name] - targets[name]).square().mean() for name in FACTORS}
        return {**found, "total": sum(FACTORS[name] * loss for name, loss in found.items())}


class OwnLearned(MultiTaskLoss):
    """A subclass whose forward has parameters of its own."""

    def __init__(self, *given, **options):
        super().__init__(*given, **options)
        self.shift = nn.Parameter(torch.zeros(()))

    def forward(self, outputs, targets, return_dict=False):
        found = self.compute_task_losses(outputs, targets)
        total = sum(found.values()) * torch.exp(self.shift) - self.shift - 5
        return (total, found) if return_dict else total


class Offset(MultiTaskLoss):
    """A subclass whose forward adds something to what it inherits."""

    def forward(self, outputs, targets, return_dict=False):
        total, found = super().forward(outputs, targets, return_dict=True)
        return (total - 5, found) if return_dict else total - 5


@pytest.mark.parametrize(
    "criterion",
    [Learned(), OwnLearned(losses()), Offset(losses(), weighting=UW())],
    ids=["a module", "a subclass", "a subclass with a weighting"],
)
def test_a_total_with_parameters_has_a_key_of_its_own(criterion):
    values = fitted(criterion)
    check_totals(values, factors=dict.fromkeys(FACTORS, 1.0))
    for stage in ("train", "val"):
        assert values[f"{stage}/objective/epoch"] < values[f"{stage}/loss/total/epoch"] - 4


def test_a_total_of_ones_own_without_parameters_is_the_total():
    values = fitted(Constant())
    check_totals(values)
    values = fitted(Offset(losses(), FACTORS))
    for stage in ("train", "val"):
        expected = sum(factor * values[f"{stage}/loss/{name}/epoch"] for name, factor in FACTORS.items())
        assert values[f"{stage}/loss/total/epoch"] == pytest.approx(expected - 5, rel=1e-5)
    assert "val/objective/epoch" not in values


def test_a_total_alone_is_the_total():
    values = fitted(Learned(total_alone=True))
    assert values["val/loss/total/epoch"] == values["val/objective/epoch"]


# ---- a run ------------------------------------------------------------------------------------

RISING = '''
from polytask.weighting import LossWeighting


class Rising(LossWeighting):
    """A scalar that falls as the losses rise."""

    def scalar(self, losses, indices):
        return -losses.sum()
'''


@pytest.mark.slow
def test_the_best_checkpoint_is_of_the_least_sum(demo, cli):
    (demo / "rising.py").write_text(RISING)
    options = ("system.criterion.weighting={_target_: rising.Rising}", "system.optimizer.lr=1e-3")
    result = cli("fit", "config.yaml", "--run-dir", "run", *options, "trainer.max_epochs=4")
    assert result.code == 0, result.err
    with open(demo / "run" / "metrics.csv") as file:
        found = [row for row in csv.DictReader(file) if row["val/loss/total/epoch"]]
    sums = [float(row["val/loss/shape/epoch"]) + float(row["val/loss/height/epoch"]) for row in found]
    scalars = [float(row["val/objective/epoch"]) for row in found]
    assert (np.argmin(scalars), np.argmin(sums)) == (3, 0)
    best = torch.load(demo / "run" / "checkpoints" / "best.ckpt", weights_only=True)
    assert best["epoch"] == 0
    assert "objective" not in result.out
