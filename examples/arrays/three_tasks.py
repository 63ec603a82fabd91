"""Three tasks whose weights follow how fast their losses fall, with metrics that are plain functions."""

import argparse

import numpy as np
import torch
import torch.nn as nn

from polytask.data import create_multitask_dataloader
from polytask.losses import DynamicWeightAverage
from polytask.metrics import accuracy
from polytask.models import MLP, create_hard_sharing_model
from polytask.trainer import MultiTaskTrainer


def mean_absolute_error(predictions: np.ndarray, targets: np.ndarray) -> float:
    return float(np.abs(predictions - targets).mean())


def main(epochs: int) -> dict[str, list[float]]:
    rng = np.random.default_rng(0)
    inputs = rng.normal(size=(1000, 10))
    radius = np.linalg.norm(inputs[:, :2], axis=1)
    targets = {
        "radius": radius,
        "quadrant": 2 * (inputs[:, 0] > 0) + (inputs[:, 1] > 0),
        "inside": radius < 1,
    }
    loader = create_multitask_dataloader(inputs, targets, batch_size=50, seed=0)

    torch.manual_seed(0)
    model = create_hard_sharing_model(
        MLP(10, [64], 32, activate_output=True),
        {"radius": {"output_dim": 1}, "quadrant": {"output_dim": 4}, "inside": {"output_dim": 2}},
    )
    loss_fn = DynamicWeightAverage(
        {"radius": nn.L1Loss(), "quadrant": nn.CrossEntropyLoss(), "inside": nn.CrossEntropyLoss()},
        temperature=2.0,
    )
    metrics = {"radius": mean_absolute_error, "quadrant": accuracy, "inside": accuracy}
    trainer = MultiTaskTrainer(
        model, loss_fn, torch.optim.Adam(model.parameters(), lr=5e-3), metric_fns=metrics
    )
    history = trainer.fit(loader, epochs=epochs)
    return {key: values for key, values in history.items() if key.startswith("weights/")}


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--epochs", type=int, default=15)
    print(main(parser.parse_args().epochs))
