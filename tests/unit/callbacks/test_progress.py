"""What a run shows, on consoles of fixed width."""

import io
import re

import pytest
import torch
from rich.console import Console
from torch import nn
from torch.utils.data import DataLoader
from torchmetrics import MeanAbsoluteError, MeanSquaredError

from polytask import System
from polytask.callbacks._progress import ProgressReport, summary
from polytask.losses import MultiTaskLoss
from polytask.models import MultiHead
from tests.training import quiet_trainer

pytestmark = pytest.mark.filterwarnings(
    "ignore:.*LeafSpec.*:FutureWarning", "ignore:.*does not have many workers"
)
TARGETS = {"low": torch.tensor([0.5]), "high": torch.tensor([2.0])}
ROWS = [(torch.tensor([float(i)]), TARGETS) for i in range(6)]


def system() -> System:
    torch.manual_seed(0)
    return System(
        MultiHead(nn.Linear(1, 2), {"low": nn.Linear(2, 1), "high": nn.Linear(2, 1)}),
        MultiTaskLoss({"low": nn.MSELoss(), "high": nn.MSELoss()}),
        lambda parameters: torch.optim.SGD(parameters, lr=0.01),
        metrics={"low": [MeanSquaredError(), MeanAbsoluteError()]},
    )


def shown(tmp_path, *, terminal: bool, val: bool = True, width: int = 200, **options) -> str:
    text = io.StringIO()
    console = Console(file=text, width=width, force_terminal=terminal, color_system=None, soft_wrap=True)
    trainer = quiet_trainer(
        **{"max_epochs": 2, **options},
        log_every_n_steps=1,
        default_root_dir=tmp_path,
        callbacks=[ProgressReport(console)],
    )
    loader = DataLoader(ROWS, batch_size=2)
    trainer.fit(system(), loader, loader if val else None)
    return text.getvalue()


def test_outside_a_terminal_an_epoch_is_one_line(tmp_path):
    first, second = shown(tmp_path, terminal=False).splitlines()
    pattern = (
        r"epoch {}/2  step {}  train loss/low=\S+ loss/high=\S+ loss/total=\S+ low/MeanSquaredError=\S+"
        r"  val loss/low=\S+ loss/high=\S+ loss/total=\S+ low/MeanSquaredError=\S+  \d+\.\d s"
    )
    assert re.fullmatch(pattern.format(1, 3), first)
    assert re.fullmatch(pattern.format(2, 6), second)


def test_a_run_without_validation_or_number_of_epochs(tmp_path):
    (line,) = shown(tmp_path, terminal=False, val=False, max_epochs=-1, max_steps=3).splitlines()
    assert line.startswith("epoch 1  step 3  train loss/low=")
    assert " val " not in line


@pytest.mark.parametrize("width", [40, 200])
def test_in_a_terminal_there_is_a_bar_with_losses_and_main_metrics(tmp_path, width):
    text = shown(tmp_path, terminal=True, width=width)
    plain = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", text)
    # The bar is drawn ten times a second, and once more when it stops.
    last = plain[plain.index("\n", plain.rindex("epoch 2/2  step")) :].split()
    assert last[:2] == ["epoch", "2/2"]
    assert "3/3" in last
    for key in ("loss/low=", "loss/high=", "loss/total=", "low/MeanSquaredError="):
        assert any(word.startswith(key) for word in last), key
    assert "MeanAbsoluteError" not in text
    assert all(len(line) <= width for line in plain.splitlines() if "loss" in line and "step" not in line)


def test_the_bar_ends_with_the_run(tmp_path):
    text = io.StringIO()
    console = Console(file=text, width=120, force_terminal=True)
    report = ProgressReport(console)
    trainer = quiet_trainer(
        default_root_dir=tmp_path,
        callbacks=[report],
    )
    rows = [(torch.zeros(7), targets) for _, targets in ROWS]
    with pytest.raises(ValueError, match="failed on"):
        trainer.fit(system(), DataLoader(rows, batch_size=2))
    assert report._bar is None
    assert text.getvalue().count("\x1b[?25l") == text.getvalue().count("\x1b[?25h")


def test_a_summary_holds_what_is_known_only():
    model = system()
    assert summary(model, "val", "epoch") == []
    model.latest = {
        "val/loss/low/epoch": 0.123456,
        "val/low/MeanSquaredError/epoch": 2.0,
        "train/loss/low/epoch": 1.0,
    }
    assert summary(model, "val", "epoch") == ["loss/low=0.1235", "low/MeanSquaredError=2"]
