"""Data and equation of the heat equation, without conflicts of their gradients."""

import json
from functools import partial

import pytorch_lightning as pl
import torch
from heat import Heat, Points
from torch import nn
from torch.utils.data import DataLoader
from torchmetrics import MeanSquaredError, R2Score

from polytask import MultiTaskLoss, System
from polytask.weighting import ConFIG


def train():
    pl.seed_everything(6)
    losses = {"temperature": nn.MSELoss(), "residual": nn.MSELoss()}
    system = System(
        Heat(),
        MultiTaskLoss(losses, weighting=ConFIG()),
        partial(torch.optim.Adam, lr=0.01),
        partial(torch.optim.lr_scheduler.ExponentialLR, gamma=0.9),
        {"temperature": [MeanSquaredError(), R2Score()], "residual": MeanSquaredError()},
        dataloaders={
            "train": DataLoader(Points(0, 60), batch_size=12, shuffle=True),
            "val": DataLoader(Points(60, 90), batch_size=7),
        },
    )
    trainer = pl.Trainer(max_epochs=3, accelerator="cpu", logger=False, enable_checkpointing=False)
    trainer.fit(system)
    return {key: float(value) for key, value in trainer.callback_metrics.items()}


if __name__ == "__main__":
    print(json.dumps([train(), train()]))
