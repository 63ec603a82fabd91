"""What is changed when a run is resumed takes effect, or a line says that it cannot.

The rates that are expected are those of torch's own optimizer and scheduler, stepped in a plain loop.
"""

import csv
import functools
import warnings
from pathlib import Path

import pytest
import pytorch_lightning as pl
import torch
import yaml
from pytorch_lightning.callbacks import EarlyStopping, ModelCheckpoint
from torch.optim import lr_scheduler
from torch.utils.data import DataLoader, TensorDataset

from polytask import System
from polytask.callbacks import ExactResume
from polytask.losses import MultiTaskLoss
from polytask.models import MLP, MultiHead, TaskHead

LR = "torch.optim.lr_scheduler"
STEPS = 6  # of an epoch
KEY = "val/loss/total/epoch"


@pytest.fixture
def fit(cli, demo):
    """Trains a new run, or resumes it with other values; a callable on the config's system and trainer."""

    def run(epochs, *words, resume=False, **system):
        config = yaml.safe_load((demo / "config.yaml").read_text())
        config["trainer"] |= {"max_epochs": epochs, "log_every_n_steps": 1}
        config["trainer"]["callbacks"] = system.pop("callbacks", [])
        config["system"] |= {name: value for name, value in system.items() if value is not None}
        Path("now.yaml").write_text(yaml.safe_dump(config))
        result = cli("fit", "now.yaml", "--run-dir", "run", *(["--resume"] if resume else []), *words)
        assert "Traceback" not in result.err
        return result

    return run


def rates(run="run"):
    with Path(run, "metrics.csv").open() as file:
        return [float(row["lr/rest"]) for row in csv.DictReader(file) if row.get("lr/rest")]


def sgd(lr, **options):
    return {"_target_": "torch.optim.SGD", "lr": lr, "momentum": 0.5, **options}


def scheduler(name, interval="epoch", **options):
    return {"_target_": f"{LR}.{name}", "interval": interval, **options}


def expected(count, lr, build=None, by_epoch=True):
    """The rates of a plain loop; a run logs a step's rate after its scheduler has stepped."""
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=lr, momentum=0.5)
    schedule = build(optimizer) if build else None
    found = []
    for step in range(count):
        optimizer.step()
        if schedule is not None and (not by_epoch or (step + 1) % STEPS == 0):
            schedule.step()
        found.append(optimizer.param_groups[0]["lr"])
    return found


SCHEDULES = {
    "CosineAnnealingLR": {"T_max": 5},
    "CosineAnnealingWarmRestarts": {"T_0": 4},
    "CyclicLR": {"base_lr": 0.01, "max_lr": 0.2, "step_size_up": 5},
    "ExponentialLR": {"gamma": 0.8},
    "LinearLR": {"total_iters": 4},
    "MultiStepLR": {"milestones": [1, 4, 11]},
    "OneCycleLR": {"max_lr": 0.2, "total_steps": 40},
    "PolynomialLR": {"total_iters": 16, "power": 2.0},
    "StepLR": {"step_size": 2, "gamma": 0.5},
}
OTHERS = {
    "CosineAnnealingLR": {"T_max": 9},
    "CosineAnnealingWarmRestarts": {"T_0": 6},
    "CyclicLR": {"base_lr": 0.02, "max_lr": 0.4, "step_size_up": 4},
    "ExponentialLR": {"gamma": 0.5},
    "LinearLR": {"total_iters": 8},
    "MultiStepLR": {"milestones": [2, 3, 13]},
    "OneCycleLR": {"max_lr": 0.4, "total_steps": 60},
    "PolynomialLR": {"total_iters": 30, "power": 1.0},
    "StepLR": {"step_size": 1, "gamma": 0.25},
}


@pytest.mark.slow
@pytest.mark.long
@pytest.mark.filterwarnings("ignore:A `OneCycleLR` scheduler is using")
@pytest.mark.parametrize("interval", ["epoch", "step"])
@pytest.mark.parametrize("name", SCHEDULES)
def test_another_schedule_continues_where_it_would_be(fit, name, interval):
    fit(2, optimizer=sgd(0.1), scheduler=scheduler(name, interval, **SCHEDULES[name]))
    result = fit(4, resume=True, optimizer=sgd(0.1), scheduler=scheduler(name, interval, **OTHERS[name]))
    assert result.code == 0, result.err
    build = functools.partial(getattr(lr_scheduler, name), **OTHERS[name])
    assert rates()[2 * STEPS :] == expected(4 * STEPS, 0.1, build, interval == "epoch")[2 * STEPS :]


@pytest.mark.slow
@pytest.mark.parametrize("reads", [5, 24, 40, 48, 64])
def test_a_schedule_is_changed_where_a_run_was_stopped(cli, demo, fit, reads):
    """After a stop by a signal, within an epoch or between two."""
    text = (demo / "config.yaml").read_text()
    dataset = f"{{_target_: data.Interrupting, rows: 24, reads: {reads}}}"
    (demo / "config.yaml").write_text(text.replace("{_target_: data.Points, rows: 24}", dataset))
    with pytest.raises(SystemExit):
        fit(3, optimizer=sgd(0.1), scheduler=scheduler("ExponentialLR", gamma=0.5))
    at = torch.load("run/checkpoints/last.ckpt", weights_only=True)["global_step"]
    now = scheduler("ExponentialLR", gamma=0.8)
    assert fit(3, resume=True, optimizer=sgd(0.1), scheduler=now).code == 0
    build = functools.partial(lr_scheduler.ExponentialLR, gamma=0.8)
    assert rates()[at:] == expected(3 * STEPS, 0.1, build)[at:]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("before", "after"),
    [
        pytest.param((0.1, None), (0.02, None), id="rate"),
        pytest.param(
            (0.1, ("StepLR", {"step_size": 1})), (0.5, ("StepLR", {"step_size": 1})), id="first_rate"
        ),
        pytest.param((0.1, None), (0.1, ("ExponentialLR", {"gamma": 0.5})), id="with_a_scheduler"),
        pytest.param((0.1, ("ExponentialLR", {"gamma": 0.5})), (0.1, None), id="without_a_scheduler"),
        pytest.param(
            (0.1, ("OneCycleLR", {"max_lr": 0.2, "total_steps": 40})),
            (0.1, ("ExponentialLR", {"gamma": 0.5})),
            id="another_type",
            marks=pytest.mark.filterwarnings("ignore:A `OneCycleLR` scheduler is using"),
        ),
    ],
)
def test_another_rate_or_scheduler_takes_effect(cli, fit, before, after):
    def given(lr, schedule):
        return {"optimizer": sgd(lr), "scheduler": schedule and scheduler(schedule[0], **schedule[1])}

    fit(2, **given(*before))
    assert fit(3, resume=True, **given(*after)).code == 0
    lr, schedule = after
    build = schedule and functools.partial(getattr(lr_scheduler, schedule[0]), **schedule[1])
    assert rates()[2 * STEPS :] == expected(3 * STEPS, lr, build)[2 * STEPS :]
    saved = torch.load("run/checkpoints/last.ckpt", weights_only=True)["optimizer_states"][0]["param_groups"]
    assert saved[0]["momentum"] == 0.5
    # The change was made once, and is not made again.
    assert cli("fit", "--resume", "--run-dir", "run", "trainer.max_epochs=4").code == 0
    assert rates()[2 * STEPS :] == expected(4 * STEPS, lr, build)[2 * STEPS :]


@pytest.mark.slow
def test_another_option_of_the_optimizer_takes_effect_and_leaves_the_rate(fit):
    schedule = scheduler("ExponentialLR", gamma=0.5)
    fit(2, optimizer=sgd(0.1), scheduler=schedule)
    fit(3, resume=True, optimizer=sgd(0.1, weight_decay=0.3), scheduler=schedule)
    saved = torch.load("run/checkpoints/last.ckpt", weights_only=True)["optimizer_states"][0]["param_groups"]
    assert saved[0]["weight_decay"] == 0.3
    build = functools.partial(lr_scheduler.ExponentialLR, gamma=0.5)
    assert rates() == expected(3 * STEPS, 0.1, build)


@pytest.mark.slow
def test_a_plateau_scheduler_takes_its_new_options(fit):
    """Nothing is ever better by a factor of 1000, so that the patience alone decides."""
    plateau = {"monitor": KEY, "threshold": 0.999, "factor": 0.5}
    fit(3, optimizer=sgd(0.08), scheduler=scheduler("ReduceLROnPlateau", patience=1, **plateau))
    assert rates() == [0.08] * 3 * STEPS
    now = scheduler("ReduceLROnPlateau", patience=0, **plateau)
    assert fit(5, resume=True, optimizer=sgd(0.08), scheduler=now).code == 0
    # The third epoch has used up the former patience.
    assert rates()[3 * STEPS :] == [0.04] * STEPS + [0.02] * STEPS
    assert fit(6, resume=True, optimizer=sgd(0.8), scheduler=now).code == 0
    assert rates()[5 * STEPS :] == pytest.approx([0.1] * STEPS)


@pytest.mark.slow
def test_a_schedule_that_ends_before_the_checkpoint_is_refused(fit):
    fit(2, optimizer=sgd(0.1))
    cycle = scheduler("OneCycleLR", "step", max_lr=0.2, total_steps=10)
    result = fit(3, resume=True, optimizer=sgd(0.1), scheduler=cycle)
    assert result.code == 2
    assert result.err.startswith("error: scheduler: must be defined at step 12, where the run continues")
    assert "OneCycleLR" not in Path("run/config.yaml").read_text()


def stopping(patience):
    return [
        {
            "_target_": "pytorch_lightning.callbacks.EarlyStopping",
            "monitor": KEY,
            "patience": patience,
            "min_delta": 9.0,
        }
    ]


@pytest.mark.slow
def test_another_patience_continues_a_run_that_stopped(fit):
    fit(9, callbacks=stopping(1))
    assert len(rates()) == 2 * STEPS
    result = fit(9, resume=True, callbacks=stopping(1))
    assert result.code == 0
    assert (
        "nothing to do: a callback stopped the run after step 12. Change the callback to continue."
        in result.out
    )
    assert fit(9, resume=True, callbacks=stopping(3)).code == 0
    assert len(rates()) == 4 * STEPS


@pytest.mark.slow
def test_a_finished_run_says_that_there_is_nothing_to_do_and_keeps_its_config(fit):
    fit(2, optimizer=sgd(0.1))
    before = torch.load("run/checkpoints/last.ckpt", weights_only=True)["state_dict"]
    for words, rule in (
        ((), "the run has trained its 2 epochs. Raise trainer.max_epochs"),
        (("trainer.max_steps=12",), "the run has made its 12 steps. Raise trainer.max_steps"),
    ):
        result = fit(2, *words, resume=True, optimizer=sgd(0.3))
        assert result.code == 0
        assert f"nothing to do: {rule} to continue." in result.out
        assert yaml.safe_load(Path("run/config.yaml").read_text())["system"]["optimizer"]["lr"] == 0.1
    after = torch.load("run/checkpoints/last.ckpt", weights_only=True)["state_dict"]
    assert all(torch.equal(before[name], after[name]) for name in before)
    result = fit(3, resume=True, optimizer=sgd(0.3))
    assert "nothing to do" not in result.out
    assert rates() == [0.1] * 2 * STEPS + [0.3] * STEPS


@pytest.mark.slow
def test_an_end_before_the_checkpoint_is_refused(fit):
    fit(2)
    result = fit(1, resume=True)
    assert result.code == 2
    rule = "must be at least 2, the number of epochs that the run has trained, got 1. Raise it."
    assert result.err == f"error: trainer.max_epochs: {rule}\n"


@pytest.mark.slow
def test_what_cannot_change_is_named(fit):
    def weighted(weight):
        loss = {
            "_target_": "torch.nn.CrossEntropyLoss",
            "weight": {"_target_": "torch.tensor", "data": [1.0, weight, 1.0]},
        }
        losses = {"shape": loss, "height": {"_target_": "torch.nn.MSELoss"}}
        return {"_target_": "polytask.losses.MultiTaskLoss", "task_losses": losses}

    fit(1, criterion=weighted(1.0))
    said = "without effect, since the run has it from its checkpoint: "
    assert said not in fit(2, resume=True, criterion=weighted(1.0)).out
    assert f"{said}seed\n" in fit(3, "seed=5", resume=True, criterion=weighted(1.0)).out
    lines = fit(4, "seed=5", resume=True, criterion=weighted(3.0)).out.splitlines()
    (line,) = [line for line in lines if line.startswith(said)]
    assert line.endswith("shape.weight")


def system(lr):
    torch.manual_seed(0)
    loss = MultiTaskLoss({"a": torch.nn.MSELoss(), "b": torch.nn.MSELoss()})
    model = MultiHead(MLP(3, [4], 4), {"a": TaskHead(4, 1), "b": TaskHead(4, 1)})
    return System(
        model,
        loss,
        functools.partial(torch.optim.SGD, lr=lr, momentum=0.5),
        functools.partial(lr_scheduler.ExponentialLR, gamma=0.5),
    )


def test_a_change_takes_effect_with_a_trainer_in_python(tmp_path):
    rows = TensorDataset(torch.randn(8, 3), torch.randn(8, 2))

    def trained(epochs, lr, patience, resume=None):
        def batch(rows):
            x, y = zip(*rows, strict=True)
            y = torch.stack(y)
            return torch.stack(x), {"a": y[:, :1], "b": y[:, 1:]}

        keep = ModelCheckpoint(tmp_path, "last", enable_version_counter=False, save_on_train_epoch_end=True)
        stop = EarlyStopping("train/loss/total/epoch", min_delta=1e9, patience=patience)
        trainer = pl.Trainer(
            max_epochs=epochs,
            accelerator="cpu",
            logger=False,
            callbacks=[stop, keep, ExactResume()],
            enable_progress_bar=False,
            enable_model_summary=False,
        )
        own = system(lr)
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message=".*does not have many workers")
            warnings.filterwarnings("ignore", message=".*exists and is not empty")
            trainer.fit(own, DataLoader(rows, 4, collate_fn=batch), ckpt_path=resume, weights_only=True)
        return trainer

    assert trained(2, 0.1, 2).optimizers[0].param_groups[0]["lr"] == 0.1 * 0.5**2
    resumed = trained(5, 0.3, 3, tmp_path / "last.ckpt")
    assert resumed.current_epoch == 4
    assert resumed.optimizers[0].param_groups[0]["lr"] == 0.3 * 0.5**4
