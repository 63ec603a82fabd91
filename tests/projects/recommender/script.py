"""Clicks and purchases, balanced by their uncertainty."""

import json
from functools import partial

import pytorch_lightning as pl
import torch
from shop import Recommender, Views
from torch.utils.data import DataLoader
from torchmetrics import AUROC, AveragePrecision

from polytask import MultiTaskLoss, System
from polytask.adapters import BatchAdapter
from polytask.optim import SchedulerFactory
from polytask.weighting import UW


def train():
    pl.seed_everything(2)
    tasks = ("click", "bought")
    one_cycle = partial(torch.optim.lr_scheduler.OneCycleLR, max_lr=0.05, total_steps=18)
    system = System(
        Recommender(),
        MultiTaskLoss({task: torch.nn.BCEWithLogitsLoss() for task in tasks}, weighting=UW()),
        partial(torch.optim.Adam, lr=0.01),
        SchedulerFactory(one_cycle, interval="step"),
        {task: [AUROC(task="binary"), AveragePrecision(task="binary")] for task in tasks},
        {"batch": BatchAdapter("ids", {task: task for task in tasks})},
        {
            "train": DataLoader(Views("train"), batch_size=12, shuffle=True),
            "val": DataLoader(Views("test"), batch_size=9),
        },
    )
    trainer = pl.Trainer(max_epochs=3, accelerator="cpu", logger=False, enable_checkpointing=False)
    trainer.fit(system)
    return {key: float(value) for key, value in trainer.callback_metrics.items()}


if __name__ == "__main__":
    print(json.dumps([train(), train()]))
