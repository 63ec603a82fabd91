"""Three dense tasks with MGDA."""

import json
from functools import partial

import pytorch_lightning as pl
import torch
from rooms import Dense, Rooms
from torch import nn
from torch.utils.data import DataLoader
from torchmetrics import Accuracy, JaccardIndex, MeanAbsoluteError, MeanSquaredError

from polytask import MultiTaskLoss, System
from polytask.adapters import BatchAdapter
from polytask.weighting import MGDA


def train():
    pl.seed_everything(7)
    losses = {"segment": nn.CrossEntropyLoss(ignore_index=255), "depth": nn.L1Loss(), "normal": nn.MSELoss()}
    classes = {"task": "multiclass", "num_classes": 4, "ignore_index": 255}
    system = System(
        Dense(),
        MultiTaskLoss(losses, weighting=MGDA()),
        partial(torch.optim.Adam, lr=0.01),
        metrics={
            "segment": [Accuracy(average="micro", **classes), JaccardIndex(**classes)],
            "depth": [MeanAbsoluteError(), MeanSquaredError(squared=False)],
            "normal": MeanSquaredError(),
        },
        adapters={"batch": BatchAdapter("image", {name: name for name in losses})},
        dataloaders={
            "train": DataLoader(Rooms(0, 24), batch_size=4, shuffle=True),
            "val": DataLoader(Rooms(24, 35), batch_size=4),
        },
    )
    trainer = pl.Trainer(max_epochs=3, accelerator="cpu", logger=False, enable_checkpointing=False)
    trainer.fit(system)
    return {key: float(value) for key, value in trainer.callback_metrics.items()}


if __name__ == "__main__":
    print(json.dumps([train(), train()]))
