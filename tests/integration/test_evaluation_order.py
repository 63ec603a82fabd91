"""Validation and test go through the rows in the data's order: only training shuffles."""

import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from polytask import System
from polytask.adapters import BatchAdapter
from polytask.data import ArrayDataset, ArrayLoader, TaskLoader
from tests.training import quiet_trainer

ROWS = torch.arange(10.0)[:, None]
pytestmark = [
    pytest.mark.filterwarnings("ignore:.*LeafSpec.*:FutureWarning"),
    pytest.mark.filterwarnings("ignore:.*does not have many workers"),
]


class Seen(nn.Module):
    task_names = ("a",)

    def __init__(self):
        super().__init__()
        self.layer, self.rows = nn.Linear(1, 1), []

    def forward(self, x, task=None):
        self.rows.append(x[:, 0].tolist())
        return {"a": self.layer(x)} if task is None else self.layer(x)


def arrays(**options):
    return ArrayLoader(ArrayDataset(ROWS, {"a": ROWS}), 4, seed=1, **options)


def samples(**options):
    return DataLoader(TensorDataset(ROWS, ROWS), 4, **options)


LOADERS = {
    "arrays": arrays,
    "samples": lambda: samples(shuffle=True),
    "samples, without the last batch": lambda: samples(shuffle=True, drop_last=True),
    "arrays, without the last batch": lambda: arrays(drop_last=True),
    "tasks": lambda: TaskLoader({"a": samples(shuffle=True)}),
}


@pytest.mark.parametrize("stage", ["validate", "test"])
@pytest.mark.parametrize("name", LOADERS)
def test_evaluation_does_not_shuffle(name, stage):
    model, loader = Seen(), LOADERS[name]()
    system = System(
        model,
        nn.MSELoss(),
        adapters={"batch": BatchAdapter(0, {"a": 1})} if name.startswith("samples") else None,
        dataloaders={"val" if stage == "validate" else stage: loader},
    )
    getattr(quiet_trainer(), stage)(system, verbose=False)
    rows = [[0.0, 1.0, 2.0, 3.0], [4.0, 5.0, 6.0, 7.0], [8.0, 9.0]]
    assert model.rows == rows[: 2 if "without" in name else 3]
