"""Two sets of texts, one for each task."""

import json
from functools import partial

import pytorch_lightning as pl
import torch
from texts import Sentences, Tagger, padded
from torch import nn
from torch.utils.data import DataLoader
from torchmetrics import Accuracy

from polytask import MultiTaskLoss, System
from polytask.data import Proportional, TaskLoader
from polytask.weighting import DWA


def loader(kind, begin, end, size, shuffle=False):
    return DataLoader(Sentences(kind, begin, end), batch_size=size, shuffle=shuffle, collate_fn=padded)


def train():
    pl.seed_everything(8)
    losses = {"topic": nn.CrossEntropyLoss(), "tag": nn.CrossEntropyLoss()}
    training = {"topic": loader("topics", 0, 40, 8, True), "tag": loader("tags", 0, 24, 6, True)}
    held_out = {"topic": loader("topics", 40, 60, 6), "tag": loader("tags", 24, 35, 4)}
    system = System(
        Tagger(),
        MultiTaskLoss(losses, weighting=DWA()),
        partial(torch.optim.Adam, lr=0.01),
        metrics={
            "topic": Accuracy(task="multiclass", num_classes=3, average="micro"),
            "tag": Accuracy(task="multiclass", num_classes=4, average="micro"),
        },
        dataloaders={"train": TaskLoader(training, Proportional(), seed=0), "val": TaskLoader(held_out)},
    )
    trainer = pl.Trainer(max_epochs=3, accelerator="cpu", logger=False, enable_checkpointing=False)
    trainer.fit(system)
    return {key: float(value) for key, value in trainer.callback_metrics.items()}


if __name__ == "__main__":
    print(json.dumps([train(), train()]))
