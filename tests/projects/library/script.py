"""The guide's third example: a trainer, metrics that are lambdas, and a weighting of one's own."""

import json

import numpy as np
import pytorch_lightning as pl
import torch
from shapes import CustomWeighting
from torch import nn

from polytask.data import create_multitask_dataloader
from polytask.metrics import accuracy
from polytask.models import MLP, create_hard_sharing_model
from polytask.trainer import MultiTaskTrainer


def loader(begin, end, size, shuffle):
    file = np.load("arrays.npz")
    targets = {name: file[name][begin:end] for name in ("task_a", "task_b", "task_c")}
    classes = {"task_a": 4, "task_b": 3}
    return create_multitask_dataloader(
        file["x"][begin:end], targets, batch_size=size, shuffle=shuffle, classes=classes, seed=0
    )


def train():
    pl.seed_everything(11)
    backbone = MLP(6, [16], 8)
    task_configs = {
        "task_a": {"output_dim": 4, "hidden_dims": [8]},
        "task_b": {"output_dim": 3},
        "task_c": {"output_dim": 1, "hidden_dims": [8]},
    }
    model = create_hard_sharing_model(backbone, task_configs)
    task_losses = {"task_a": nn.CrossEntropyLoss(), "task_b": nn.CrossEntropyLoss(), "task_c": nn.MSELoss()}
    loss_fn = CustomWeighting(task_losses, custom_param=0.5)
    optimizer = torch.optim.Adam(model.parameters(), lr=0.01)
    metric_fns = {
        "task_a": accuracy,
        "task_b": accuracy,
        "task_c": {"negative_error": lambda p, t: -np.mean((p - t) ** 2)},
    }
    trainer = MultiTaskTrainer(model, loss_fn, optimizer, metric_fns=metric_fns)
    history = trainer.fit(loader(0, 60, 12, True), loader(60, 90, 8, False), epochs=3, verbose=False)
    return {key: values[-1] for key, values in history.items() if not key.startswith("weights/")}


if __name__ == "__main__":
    print(json.dumps([train(), train()]))
