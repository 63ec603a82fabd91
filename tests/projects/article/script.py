"""The article's loop as a System: one loss for all tasks."""

import json
from functools import partial

import pytorch_lightning as pl
import torch
from tasks import Mixed, MultiTaskModel
from torch.utils.data import DataLoader
from torchmetrics import Accuracy

from polytask import System
from polytask.adapters import BatchAdapter


def train():
    pl.seed_everything(5)
    system = System(
        MultiTaskModel([4, 4, 4]),
        torch.nn.CrossEntropyLoss(),
        partial(torch.optim.Adam, lr=0.01),
        metrics={
            name: Accuracy(task="multiclass", num_classes=4, average="micro")
            for name in ("first", "second", "third")
        },
        adapters={"batch": BatchAdapter(0, 1, task_accessor=2)},
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
