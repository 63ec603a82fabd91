"""A model's own penalty in a training: its own entry, and part of the total."""

import csv
import math
from functools import partial

import pytest
import torch
from pytorch_lightning.callbacks import Callback, ModelCheckpoint
from pytorch_lightning.loggers import CSVLogger
from torch import nn
from torch.utils.data import DataLoader

from polytask import System, UserError
from polytask.losses import MultiTaskLoss
from polytask.models import MLP, MultiHead, Separate, SoftParameterSharing
from polytask.system._sharing_penalty import penalty_of, with_penalty
from polytask.weighting import UW, UPGrad
from tests.training import quiet_trainer

pytestmark = pytest.mark.filterwarnings(
    "ignore:.*LeafSpec.*:FutureWarning",
    "ignore:.*does not have many workers",
    "ignore:The `srun` command",
)
TASKS = ("a", "b")


class Strange(nn.Module):
    """Has a penalty that is none."""

    def __init__(self, value):
        super().__init__()
        self.layer, self.value = nn.Linear(2, 1), value

    def sharing_penalty(self):
        return self.value


def networks():
    torch.manual_seed(0)
    return {task: MLP(2, [3], 1) for task in TASKS}


def loader(labelled=True):
    generator = torch.Generator().manual_seed(0)
    points = torch.randn(12, 2, generator=generator)
    heights = points.sum(1) if labelled else torch.full((12,), math.nan)
    return DataLoader([(x, {"a": y, "b": -y}) for x, y in zip(points, heights, strict=True)], batch_size=4)


def system(model, **options):
    losses = MultiTaskLoss({task: nn.MSELoss() for task in TASKS}, **options)
    loaders = {"train": loader(), "val": loader()}
    return System(model, losses, partial(torch.optim.SGD, lr=0.1), dataloaders=loaders)


def fit(module, folder, *callbacks):
    trainer = quiet_trainer(
        max_epochs=2,
        default_root_dir=folder,
        logger=CSVLogger(folder),
        callbacks=list(callbacks),
        log_every_n_steps=1,
        enable_checkpointing=bool(callbacks),
    )
    trainer.fit(module)
    with open(f"{trainer.logger.log_dir}/metrics.csv") as file:
        return list(csv.DictReader(file))


def values(rows, form):
    """Per row that has them the losses by name, for keys such as ``train/loss/{}/step``."""
    names = (*TASKS, "sharing", "total")
    found = [
        {name: row[form.format(name)] for name in names} for row in rows if row.get(form.format("total"))
    ]
    return [{name: float(value) for name, value in row.items()} for row in found]


@pytest.mark.parametrize("form", ["train/loss/{}/step", "train/loss/{}/epoch", "val/loss/{}/epoch"])
def test_the_total_is_the_sum_of_what_is_shown(form, tmp_path):
    found = values(fit(system(SoftParameterSharing(networks(), 0.5)), tmp_path), form)
    assert found
    for row in found:
        assert row["sharing"] > 0
        assert row["total"] == pytest.approx(row["a"] + row["b"] + row["sharing"], rel=1e-6)


def test_the_penalty_is_trained_with_the_losses(tmp_path):
    module = system(SoftParameterSharing(networks(), 0.5))
    batch = next(iter(loader()))
    total = module.training_step(batch, 0)
    total.backward()
    other = SoftParameterSharing(networks(), 0.5)
    outputs = other(batch[0])
    by_hand = sum((outputs[task][:, 0] - batch[1][task]).square().mean() for task in TASKS)
    (by_hand + other.sharing_penalty()).backward()
    for mine, theirs in zip(module.model.parameters(), other.parameters(), strict=True):
        torch.testing.assert_close(mine.grad, theirs.grad)


def test_the_weighting_does_not_see_the_penalty():
    module = system(SoftParameterSharing(networks(), 0.5), weighting=UW())
    module.training_step(next(iter(loader())), 0)
    assert module.criterion.measurement.last.names == TASKS
    assert set(module.criterion.get_task_weights()) == set(TASKS)


def test_the_penalty_may_be_monitored(tmp_path):
    module = system(SoftParameterSharing(networks()))
    assert module.log_keys(["val"]) == [f"val/loss/{name}/epoch" for name in (*TASKS, "sharing", "total")]
    fit(module, tmp_path, ModelCheckpoint(tmp_path / "best", monitor="val/loss/sharing/epoch"))


@pytest.mark.parametrize("model", [Separate(networks()), Strange(None), Strange(None).layer])
def test_no_key_without_a_penalty(model):
    assert penalty_of(model) is None


def test_without_penalty_nothing_is_logged(tmp_path):
    rows = fit(system(Separate(networks())), tmp_path)
    assert not any("sharing" in key for key in rows[0])


def test_a_step_without_labels_is_skipped_all_the_same():
    module = system(SoftParameterSharing(networks()))
    assert module.training_step(next(iter(loader(labelled=False))), 0) is None
    assert module.skipped == 1


def test_an_attribute_of_that_name_is_not_called():
    model = nn.Linear(1, 1)
    model.sharing_penalty = 0.5
    assert penalty_of(model) is None
    model = nn.Linear(1, 1)
    model.sharing_penalty = nn.L1Loss()
    assert penalty_of(model) is None


@pytest.mark.parametrize(("value", "found"), [(0.5, "a float"), (torch.ones(2), "shape (2,)")])
def test_a_penalty_that_is_no_number_is_an_error(value, found):
    with pytest.raises(UserError) as caught:
        penalty_of(Strange(value))
    message = "model.sharing_penalty: must return a tensor with one element, or None, got"
    assert str(caught.value) == f"{message} {found}."


def test_a_loss_of_that_name_is_an_error():
    one = torch.ones(())
    with pytest.raises(UserError, match="a loss called 'sharing', which is the penalty of the model"):
        with_penalty(lambda: one, one, {"sharing": one})


class WithPenalty(MultiHead):
    """Heads on a backbone whose weights are kept small."""

    def sharing_penalty(self):
        return self.backbone.weight.square().sum()


@pytest.mark.parametrize("level", ["parameters", "representation"])
def test_a_hook_after_the_accumulation_sees_the_penalty_too(level, tmp_path):
    torch.manual_seed(0)
    model = WithPenalty(nn.Linear(2, 3), {task: nn.Linear(3, 1) for task in TASKS})
    calls, steps = [], []

    class Note(Callback):
        def on_before_optimizer_step(self, trainer, module, optimizer):
            steps.append(model.backbone.weight.grad.clone())

    model.backbone.weight.register_post_accumulate_grad_hook(lambda leaf: calls.append(leaf.grad.clone()))
    losses = MultiTaskLoss({task: nn.MSELoss() for task in TASKS}, weighting=UPGrad())
    trained = System(model, losses, partial(torch.optim.SGD, lr=0.1), level=level)
    points = [(x, {task: y[None] for task, y in targets.items()}) for x, targets in loader().dataset]
    quiet_trainer(max_epochs=1, default_root_dir=tmp_path, callbacks=[Note()]).fit(
        trained, DataLoader(points, batch_size=4)
    )
    assert len(calls) == len(steps) == 3
    assert all(torch.equal(seen, used) for seen, used in zip(calls, steps, strict=True))
