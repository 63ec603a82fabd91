"""Clicks and purchases with sparse embeddings and PCGrad."""

import json
from functools import partial

import pytorch_lightning as pl
import torch
from shop import Recommender, Views
from torch.utils.data import DataLoader
from torchmetrics import AUROC

from polytask import MultiTaskLoss, System
from polytask.adapters import BatchAdapter
from polytask.weighting import PCGrad


def train():
    pl.seed_everything(2)
    tasks = ("click", "bought")
    system = System(
        Recommender(sparse=True),
        MultiTaskLoss({task: torch.nn.BCEWithLogitsLoss() for task in tasks}, weighting=PCGrad()),
        partial(torch.optim.SGD, lr=0.1),
        metrics={task: AUROC(task="binary") for task in tasks},
        adapters={"batch": BatchAdapter("ids", {task: task for task in tasks})},
        dataloaders={
            "train": DataLoader(Views("train"), batch_size=12, shuffle=True),
            "val": DataLoader(Views("test"), batch_size=9),
        },
    )
    trainer = pl.Trainer(max_epochs=3, accelerator="cpu", logger=False, enable_checkpointing=False)
    trainer.fit(system)
    return {key: float(value) for key, value in trainer.callback_metrics.items()}


if __name__ == "__main__":
    print(json.dumps([train(), train()]))
