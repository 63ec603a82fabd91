"""The tutorial's training in Python."""

import json
from functools import partial

import pytorch_lightning as pl
import torch
from projects.shapes.datasets.multitask import Scale, build_dataset
from projects.shapes.losses.multitask_loss import MultiTaskLoss
from projects.shapes.models.multitask_net import MultiTaskNet
from torch import nn
from torch.utils.data import DataLoader
from torchmetrics import Accuracy, JaccardIndex
from torchmetrics.segmentation import DiceScore

from polytask import System


def train():
    pl.seed_everything(10)
    losses = {"classification": nn.CrossEntropyLoss(), "segmentation": nn.CrossEntropyLoss()}

    def accuracy():
        return Accuracy(task="multiclass", num_classes=4, average="micro")

    masks = DiceScore(num_classes=2, average="macro", input_format="mixed")
    overlap = JaccardIndex(task="multiclass", num_classes=2)
    system = System(
        MultiTaskNet(),
        MultiTaskLoss(losses, {"classification": 1.0, "segmentation": 0.5}),
        partial(torch.optim.AdamW, lr=1e-2, weight_decay=1e-5),
        partial(torch.optim.lr_scheduler.CosineAnnealingLR, T_max=3),
        {
            "train": {"classification": [accuracy()], "segmentation": [masks]},
            "val": {"classification": [accuracy()], "segmentation": [overlap]},
        },
        dataloaders={
            "train": DataLoader(build_dataset(transform=Scale(0.5)), batch_size=12, shuffle=True),
            "val": DataLoader(build_dataset(train=False, transform=Scale(0.5)), batch_size=8),
        },
    )
    trainer = pl.Trainer(max_epochs=3, accelerator="cpu", logger=False, enable_checkpointing=False)
    trainer.fit(system)
    return {key: float(value) for key, value in trainer.callback_metrics.items()}


if __name__ == "__main__":
    print(json.dumps([train(), train()]))
