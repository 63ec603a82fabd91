"""Heads of different widths as a System."""

import json
from functools import partial

import pytorch_lightning as pl
import torch
from tasks import AsFloat, Mixed, MultiTaskModel
from torch import nn
from torch.utils.data import DataLoader
from torchmetrics import Accuracy, MeanSquaredError

from polytask import MultiTaskLoss, System
from polytask.adapters import BatchAdapter, CriterionAdapter, MetricsAdapter
from polytask.weighting import UPGrad


def train():
    pl.seed_everything(5)
    losses = {"first": nn.CrossEntropyLoss(), "second": nn.CrossEntropyLoss(), "third": nn.MSELoss()}
    system = System(
        MultiTaskModel([4, 7, 1]),
        MultiTaskLoss(losses, weighting=UPGrad()),
        partial(torch.optim.Adam, lr=0.01),
        metrics={
            "first": Accuracy(task="multiclass", num_classes=4, average="micro"),
            "third": MeanSquaredError(),
        },
        adapters={
            "batch": BatchAdapter(0, 1, task_accessor=2),
            "criterion": CriterionAdapter(target_transforms={"third": AsFloat()}),
            "metrics": MetricsAdapter(target_transforms={"third": AsFloat()}),
        },
        dataloaders={
            "train": DataLoader(Mixed(0, 60), batch_size=12, shuffle=True),
            "val": DataLoader(Mixed(60, 95), batch_size=8),
        },
    )
    trainer = pl.Trainer(max_epochs=3, accelerator="cpu", logger=False, enable_checkpointing=False)
    trainer.fit(system)
    return {key: float(value) for key, value in trainer.callback_metrics.items()}


if __name__ == "__main__":
    print(json.dumps([train(), train()]))
