"""Four targets of a table."""

import json
from functools import partial

import pytorch_lightning as pl
import torch
from pytorch_lightning.utilities.seed import isolate_rng
from torch import nn
from torchmetrics import Accuracy, CohenKappa, MeanAbsoluteError, R2Score

from polytask import MultiTaskLoss, System
from polytask.data import ArrayLoader, TableColumns, TableDataset, TableTargets
from polytask.models import MultiHead, OrdinalHead
from polytask.weighting import FAMO


def loaders(columns):
    """From the same seed, without a trace in the random numbers: what a config does."""
    names = {name: name for name in ("sold", "style", "price", "grade")}
    targets = TableTargets(names, {"style": ["flat", "house", "villa"]})
    with isolate_rng():
        pl.seed_everything(9)
        return {
            "train": ArrayLoader(TableDataset("train.csv", columns, targets, train=True), 12, seed=0),
            "val": ArrayLoader(TableDataset("test.csv", columns, targets), 9),
        }


def train():
    pl.seed_everything(9)
    columns = TableColumns(["rooms", "area"], ["city", "garden"])
    backbone = nn.Sequential(columns, nn.Linear(18, 8), nn.ReLU())
    heads = {
        "sold": nn.Linear(8, 2),
        "style": nn.Linear(8, 3),
        "price": nn.Linear(8, 1),
        "grade": OrdinalHead(8, 4),
    }
    losses = {
        "sold": nn.CrossEntropyLoss(),
        "style": nn.CrossEntropyLoss(),
        "price": nn.HuberLoss(delta=1000.0),
        "grade": nn.NLLLoss(),
    }
    system = System(
        MultiHead(backbone, heads),
        MultiTaskLoss(losses, loss_weights={"price": 1e-6}, weighting=FAMO()),
        partial(torch.optim.Adam, lr=0.01),
        metrics={
            "sold": Accuracy(task="multiclass", num_classes=2, average="micro"),
            "style": Accuracy(task="multiclass", num_classes=3, average="micro"),
            "price": [MeanAbsoluteError(), R2Score()],
            "grade": {"kappa": CohenKappa(task="multiclass", num_classes=4, weights="quadratic")},
        },
        dataloaders=loaders(columns),
    )
    trainer = pl.Trainer(max_epochs=3, accelerator="cpu", logger=False, enable_checkpointing=False)
    trainer.fit(system)
    return {key: float(value) for key, value in trainer.callback_metrics.items()}


if __name__ == "__main__":
    print(json.dumps([train(), train()]))
