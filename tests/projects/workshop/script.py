"""The notebook's two tasks with a plain Trainer."""

import json
from functools import partial

import pytorch_lightning as pl
import torch
from parity import Multitask, Parity
from torch import nn
from torch.utils.data import DataLoader
from torchmetrics import Accuracy

from polytask import MultiTaskLoss, System
from polytask.adapters import BatchAdapter


def train():
    pl.seed_everything(1)
    backbone = nn.Sequential(nn.Linear(16, 12), nn.ReLU())
    losses = {"digit": nn.CrossEntropyLoss(), "parity": nn.CrossEntropyLoss()}
    system = System(
        Multitask(backbone, [nn.Linear(12, 5), nn.Linear(12, 2)]),
        MultiTaskLoss(losses, loss_weights={"digit": 1.0, "parity": 0.5}),
        partial(torch.optim.SGD, lr=0.05, weight_decay=1e-4, momentum=0.9, nesterov=True),
        metrics={
            "digit": Accuracy(task="multiclass", num_classes=5, average="micro"),
            "parity": Accuracy(task="multiclass", num_classes=2, average="micro"),
        },
        adapters={"batch": BatchAdapter("data", {"digit": "digit_label", "parity": "parity_label"})},
        dataloaders={
            "train": DataLoader(Parity(True), batch_size=16, shuffle=True, drop_last=True),
            "val": DataLoader(Parity(False), batch_size=8),
        },
    )
    trainer = pl.Trainer(max_epochs=3, accelerator="cpu", logger=False, enable_checkpointing=False)
    trainer.fit(system)
    return {key: float(value) for key, value in trainer.callback_metrics.items()}


if __name__ == "__main__":
    print(json.dumps([train(), train()]))
