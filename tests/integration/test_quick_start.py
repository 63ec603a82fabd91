"""The quick start word for word, and the scripts of examples/arrays."""

from pathlib import Path
from types import ModuleType

import pytest
import torch
import torch.nn as nn
import torch.optim as optim
from torch.utils.data import DataLoader

from polytask.losses import UncertaintyWeighting
from polytask.models import MLP, create_hard_sharing_model
from polytask.trainer import MultiTaskTrainer
from tests.scripts import load_script

EXAMPLES = Path(__file__).parents[2] / "examples" / "arrays"


def script(name: str) -> ModuleType:
    return load_script(f"arrays_{name}", EXAMPLES / f"{name}.py")


class Rows(torch.utils.data.Dataset):
    def __init__(self) -> None:
        generator = torch.Generator().manual_seed(0)
        self.x = torch.randn(1000, 20, generator=generator)
        self.value = self.x[:, :3].sum(1, keepdim=True)
        self.kind = torch.randint(0, 5, (1000,), generator=generator)

    def __len__(self) -> int:
        return len(self.x)

    def __getitem__(self, i: int):
        return self.x[i], {"task1": self.value[i], "task2": self.kind[i]}


def test_the_quick_start_as_it_stands(capsys: pytest.CaptureFixture[str]) -> None:
    torch.manual_seed(0)
    loader = DataLoader(Rows(), batch_size=32, shuffle=True)
    backbone = MLP(20, [128, 64], 32)
    model = create_hard_sharing_model(backbone, {"task1": {"output_dim": 1}, "task2": {"output_dim": 5}})
    task_losses = {"task1": nn.MSELoss(), "task2": nn.CrossEntropyLoss()}
    task_types = {"task1": "regression", "task2": "classification"}
    loss_fn = UncertaintyWeighting(task_losses, task_types)
    optimizer = optim.Adam(list(model.parameters()) + list(loss_fn.parameters()), lr=1e-3)
    trainer = MultiTaskTrainer(model, loss_fn, optimizer)
    history = trainer.fit(loader, epochs=10)
    uncertainties, weights = loss_fn.get_uncertainties(), loss_fn.get_task_weights()
    assert history["train/loss/task1/epoch"][-1] < 0.1 < history["train/loss/task1/epoch"][0]
    assert uncertainties["task1"] < uncertainties["task2"]
    assert history["weights/task1"][0] < weights["task1"]
    assert set(weights) == {"task1", "task2"}
    assert len(capsys.readouterr().out.splitlines()) == 10


def test_the_quick_start_on_arrays(capsys: pytest.CaptureFixture[str]) -> None:
    script("quick_start").main()
    assert "uncertainties {'task1':" in capsys.readouterr().out


def test_digits_and_parity() -> None:
    right = script("digits_parity").main(epochs=4)
    assert right["digit"] > 0.85
    assert right["parity"] > 0.85


def test_regression_and_classification() -> None:
    values = script("regression_classification").main(epochs=8)
    assert values["val/loss/price/epoch"] < 2
    assert values["val/loss/grade/epoch"] < 0.8


def test_three_tasks() -> None:
    weights = script("three_tasks").main(epochs=4)
    assert set(weights) == {"weights/radius", "weights/quadrant", "weights/inside"}
    last = [values[-1] for values in weights.values()]
    assert sum(last) == pytest.approx(3, rel=1e-4)
    assert len(set(last)) > 1
