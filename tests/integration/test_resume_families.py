"""Every scheduler of torch and every callback of Lightning in a run that is stopped and resumed.

Each public class has a row: what the config says of it, or the reason why a resumed run cannot equal one
that was never stopped. A class without a row fails.
"""

import inspect
from pathlib import Path
from typing import Any

import pytest
import pytorch_lightning.callbacks as lightning
import torch
import yaml
from pytorch_lightning.utilities.exceptions import MisconfigurationException
from torch.optim import lr_scheduler

pytestmark = pytest.mark.filterwarnings(
    "ignore:A `OneCycleLR` scheduler is using",
    "ignore:When using `Trainer.accumulate_grad_batches",
    "ignore:.*was called without a model",
    "ignore:.*there is no last checkpoint available",
)
LR = "torch.optim.lr_scheduler"
CALLBACKS = "pytorch_lightning.callbacks"
PARTS = [
    {"_target_": f"{LR}.LinearLR", "total_iters": 4},
    {"_target_": f"{LR}.ExponentialLR", "gamma": 0.9},
]
RULE = {"_target_": "data.falling", "_partial_": True}
KEY = "val/loss/total/epoch"

SCHEDULERS: dict[str, dict[str, Any] | str] = {
    "ChainedScheduler": {"schedulers": PARTS},
    "ConstantLR": {"total_iters": 3},
    "CosineAnnealingLR": {"T_max": 7},
    "CosineAnnealingWarmRestarts": {"T_0": 4},
    "CyclicLR": {"base_lr": 0.01, "max_lr": 0.2, "step_size_up": 5},
    "ExponentialLR": {"gamma": 0.8},
    "LRScheduler": "the base class, which has no schedule",
    "LambdaLR": {"lr_lambda": RULE},
    "LinearLR": {"total_iters": 4},
    "MultiStepLR": {"milestones": [1, 4, 11]},
    "MultiplicativeLR": {"lr_lambda": RULE},
    "OneCycleLR": {"max_lr": 0.2, "total_steps": 19},
    "PolynomialLR": {"total_iters": 16, "power": 2.0},
    "ReduceLROnPlateau": {"monitor": KEY, "patience": 0, "threshold": 0.9},
    "SequentialLR": {"schedulers": PARTS, "milestones": [2]},
    "StepLR": {"step_size": 2, "gamma": 0.5},
}
BASE = "a base class, which does nothing of its own"
ATTRIBUTE = (
    "needs an attribute of the LightningModule that System does not have, and fails before the first step"
)
CALLBACK: dict[str, dict[str, Any] | str] = {
    "BackboneFinetuning": ATTRIBUTE,
    "BaseFinetuning": {"_target_": "data.Later"},
    "BasePredictionWriter": BASE,
    "BatchSizeFinder": ATTRIBUTE,
    "Callback": BASE,
    "Checkpoint": BASE,
    "DeviceStatsMonitor": {"cpu_stats": False},
    "EMAWeightAveraging": {"decay": 0.9},
    "EarlyStopping": {"monitor": KEY, "patience": 1, "min_delta": 0.01},
    "GradientAccumulationScheduler": {"scheduling": {0: 1, 1: 2}},
    "LambdaCallback": {},
    "LearningRateFinder": ATTRIBUTE,
    "LearningRateMonitor": {},
    "ModelCheckpoint": {"monitor": KEY},
    "ModelPruning": "saves the pruned weights, but not the masks and the values below them",
    "ModelSummary": {},
    "OnExceptionCheckpoint": {"dirpath": "x"},
    "ProgressBar": BASE,
    "RichModelSummary": {},
    "RichProgressBar": {},
    "SpikeDetection": "fails at the first step in Lightning 2.6",
    "StochasticWeightAveraging": {
        "swa_lrs": 0.05,
        "swa_epoch_start": 1,
        "annealing_epochs": 4,
        "annealing_strategy": "linear",
    },
    "TQDMProgressBar": {},
    "ThroughputMonitor": "logs times, which differ from run to run",
    "Timer": {"duration": {"hours": 1}},
    "WeightAveraging": {},
}
DATA = """
from pytorch_lightning.callbacks import BaseFinetuning


class Later(BaseFinetuning):
    def freeze_before_training(self, module):
        self.freeze(module.model.backbone)

    def finetune_function(self, module, epoch, optimizer):
        if epoch == 1:
            self.unfreeze_and_add_param_group(module.model.backbone, optimizer, lr=0.05)


def size(batch):
    return len(batch)

def falling(step):
    return 0.9 ** (step % 5)
"""
# In the middle of an epoch, between two, and in the middle of the last.
STOPS = {"within": 40, "between": 24, "last": 64}


def public(module: Any, base: type) -> set[str]:
    """The public classes of a kind, by what the module has and not by what it lists."""
    found = inspect.getmembers(module, inspect.isclass)
    return {name for name, cls in found if issubclass(cls, base) and not name.startswith("_")}


def last(run: Path) -> dict[str, Any]:
    return torch.load(run / "checkpoints/last.ckpt", weights_only=True)


def same(one: Any, other: Any) -> bool:
    if isinstance(one, torch.Tensor):
        return torch.equal(one, other)
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(same(one[key], other[key]) for key in one)
    if isinstance(one, list | tuple):
        return len(one) == len(other) and all(map(same, one, other))
    return bool(one == other)


def configure(demo: Path, change: dict[str, Any], reads: int) -> None:
    """The demo with three epochs, momentum, which schedulers may cycle, and data that interrupt it once."""
    config = yaml.safe_load((demo / "config.yaml").read_text())
    config["trainer"]["max_epochs"] = 3
    config["system"]["optimizer"] |= {"momentum": 0.5}
    dataset = {"_target_": "data.Interrupting", "rows": 24, "reads": reads}
    config["system"]["dataloaders"]["train"]["dataset"] = dataset
    config["trainer"] |= change.get("trainer", {})
    config["system"] |= change.get("system", {})
    (demo / "config.yaml").write_text(yaml.safe_dump(config))
    (demo / "data.py").write_text((demo / "data.py").read_text() + DATA)


def assert_resumes(cli: Any, demo: Path, change: dict[str, Any], reads: int) -> None:
    configure(demo, change, reads)
    with pytest.raises(SystemExit) as stop:
        cli("fit", "config.yaml", "--run-dir", "parts")
    assert stop.value.code == 130
    at = last(Path("parts"))["global_step"]
    resumed = cli("fit", "config.yaml", "--run-dir", "parts", "--resume")
    assert resumed.code == 0, resumed.err
    assert f"resuming parts at step {at}" in resumed.out
    assert cli("fit", "config.yaml", "--run-dir", "whole").code == 0
    one, other = last(Path("parts")), last(Path("whole"))
    assert at < one["global_step"] == other["global_step"]
    for key in ("state_dict", "optimizer_states", "lr_schedulers"):
        assert same(one[key], other[key]), key
    assert Path("parts/metrics.csv").read_text() == Path("whole/metrics.csv").read_text()


def test_every_scheduler_has_a_row():
    assert public(lr_scheduler, lr_scheduler.LRScheduler) == set(SCHEDULERS)


@pytest.mark.slow
@pytest.mark.long
@pytest.mark.parametrize("stop", STOPS)
@pytest.mark.parametrize("interval", ["epoch", "step"])
@pytest.mark.parametrize("name", [name for name, row in SCHEDULERS.items() if not isinstance(row, str)])
def test_a_scheduler_continues(cli, demo, name, interval, stop):
    scheduler = {"_target_": f"{LR}.{name}", "interval": interval, **SCHEDULERS[name]}
    assert_resumes(cli, demo, {"system": {"scheduler": scheduler}}, STOPS[stop])


def test_every_callback_has_a_row():
    assert public(lightning, lightning.Callback) == set(CALLBACK)


@pytest.mark.slow
@pytest.mark.long
@pytest.mark.parametrize("stop", STOPS)
@pytest.mark.parametrize("name", [name for name, row in CALLBACK.items() if not isinstance(row, str)])
def test_a_callback_continues(cli, demo, name, stop):
    callback = {"_target_": f"{CALLBACKS}.{name}", **CALLBACK[name]}
    trainer = {"callbacks": [callback], "enable_progress_bar": "Bar" in name}
    assert_resumes(cli, demo, {"trainer": trainer}, STOPS[stop])


@pytest.mark.slow
@pytest.mark.parametrize("name", [name for name, row in CALLBACK.items() if row == ATTRIBUTE])
def test_a_callback_that_cannot_be_used_fails_before_the_first_step(cli, demo, name):
    callbacks = [{"_target_": f"{CALLBACKS}.{name}"}]
    configure(demo, {"trainer": {"callbacks": callbacks}}, reads=1)
    with pytest.raises((AttributeError, MisconfigurationException)):
        cli("fit", "config.yaml", "--run-dir", "run")
    assert not list(Path("run").rglob("*.ckpt"))
    assert not Path("run/metrics.csv").exists()
