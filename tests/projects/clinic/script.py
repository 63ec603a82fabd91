"""Two inputs, two tasks, two batches to a step."""

import json

import pytorch_lightning as pl
import torch
from clinic import Fusion, Patients
from torch import nn
from torch.utils.data import DataLoader
from torchmetrics import Accuracy, F1Score, MeanAbsoluteError

from polytask import MultiTaskLoss, System
from polytask.adapters import BatchAdapter
from polytask.optim import OptimizerFactory, SchedulerFactory


def plateau(optimizer):
    return torch.optim.lr_scheduler.ReduceLROnPlateau(optimizer, patience=0)


def train():
    pl.seed_everything(4)
    system = System(
        Fusion(),
        MultiTaskLoss({"disease": nn.CrossEntropyLoss(), "age": nn.L1Loss()}, loss_weights={"age": 0.1}),
        OptimizerFactory(lambda groups: torch.optim.AdamW(groups, lr=0.01), groups={"signal": {"lr": 0.02}}),
        SchedulerFactory(plateau, monitor="val/loss/total/epoch"),
        {
            "disease": [
                Accuracy(task="multiclass", num_classes=3, average="micro"),
                F1Score(task="multiclass", num_classes=3, average="macro"),
            ],
            "age": MeanAbsoluteError(),
        },
        {"batch": BatchAdapter("inputs", "labels")},
        {
            "train": DataLoader(Patients(0, 60), batch_size=6, shuffle=True),
            "val": DataLoader(Patients(60, 95), batch_size=8),
        },
    )
    trainer = pl.Trainer(
        max_epochs=3,
        accelerator="cpu",
        accumulate_grad_batches=2,
        gradient_clip_val=1.0,
        logger=False,
        enable_checkpointing=False,
    )
    trainer.fit(system)
    return {key: float(value) for key, value in trainer.callback_metrics.items()}


if __name__ == "__main__":
    print(json.dumps([train(), train()]))
