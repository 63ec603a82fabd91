"""A regression and a classification on a 1000 x 50 table, with a learning rate that falls between epochs."""

import argparse

import numpy as np
import torch
import torch.nn as nn

from polytask.data import create_multitask_dataloader
from polytask.losses import UncertaintyWeighting
from polytask.models import MLP, create_hard_sharing_model
from polytask.trainer import MultiTaskTrainer


def table(rows: int, columns: int) -> tuple[np.ndarray, dict[str, np.ndarray]]:
    """Two targets that hang on the same hidden direction; every fifth price is missing."""
    rng = np.random.default_rng(0)
    inputs = rng.normal(size=(rows, columns))
    hidden = inputs @ rng.normal(size=columns) / np.sqrt(columns)
    price = 3 * hidden + rng.normal(scale=0.3, size=rows)
    price[::5] = np.nan
    return inputs, {"price": price, "grade": np.digitize(hidden, [-0.5, 0.5])}


def main(epochs: int) -> dict[str, float]:
    inputs, targets = table(1000, 50)
    train = create_multitask_dataloader(inputs[:800], {name: y[:800] for name, y in targets.items()}, seed=0)
    val = create_multitask_dataloader(
        inputs[800:], {name: y[800:] for name, y in targets.items()}, batch_size=200, shuffle=False
    )

    torch.manual_seed(0)
    model = create_hard_sharing_model(
        MLP(50, [64], 32, activate_output=True), {"price": {"output_dim": 1}, "grade": {"output_dim": 3}}
    )
    loss_fn = UncertaintyWeighting(
        {"price": nn.MSELoss(), "grade": nn.CrossEntropyLoss()}, {"grade": "classification"}
    )
    optimizer = torch.optim.Adam([*model.parameters(), *loss_fn.parameters()], lr=5e-3)
    scheduler = torch.optim.lr_scheduler.ExponentialLR(optimizer, 0.9)

    trainer = MultiTaskTrainer(model, loss_fn, optimizer, grad_clip=1.0)
    for _ in range(epochs):
        trainer.train_epoch(train)
        scheduler.step()
    print("noise", trainer.get_task_uncertainties())
    return trainer.validate(val)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--epochs", type=int, default=15)
    print(main(parser.parse_args().epochs))
