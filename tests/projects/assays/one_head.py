"""The assays in Python, as one task with twelve labels."""

import json
from functools import partial

import pytorch_lightning as pl
import torch
from assays import Assays, Network
from torch.utils.data import DataLoader
from torchmetrics import AUROC, AveragePrecision

from polytask import System


def train():
    pl.seed_everything(3)
    system = System(
        Network({"toxic": 12}),
        torch.nn.BCEWithLogitsLoss(),
        partial(torch.optim.Adam, lr=0.01),
        metrics={
            "toxic": [
                AUROC(task="multilabel", num_labels=12),
                AveragePrecision(task="multilabel", num_labels=12),
            ]
        },
        dataloaders={
            "train": DataLoader(Assays("assays.npz", [0, 60]), batch_size=12, shuffle=True),
            "val": DataLoader(Assays("assays.npz", [60, 90]), batch_size=7),
        },
    )
    trainer = pl.Trainer(max_epochs=3, accelerator="cpu", logger=False, enable_checkpointing=False)
    trainer.fit(system)
    return {key: float(value) for key, value in trainer.callback_metrics.items()}


if __name__ == "__main__":
    print(json.dumps([train(), train()]))
