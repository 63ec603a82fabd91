"""A regression and a classification on arrays, with learned uncertainties."""

import numpy as np
import torch.nn as nn
import torch.optim as optim

from polytask.data import create_multitask_dataloader
from polytask.losses import UncertaintyWeighting
from polytask.models import MLP, create_hard_sharing_model
from polytask.trainer import MultiTaskTrainer


def main() -> None:
    rng = np.random.default_rng(0)
    inputs = rng.normal(size=(1000, 20))
    targets = {"task1": inputs[:, :3].sum(axis=1), "task2": rng.integers(0, 5, size=1000)}
    loader = create_multitask_dataloader(inputs, targets, batch_size=32, shuffle=True)

    backbone = MLP(20, [128, 64], 32)
    model = create_hard_sharing_model(backbone, {"task1": {"output_dim": 1}, "task2": {"output_dim": 5}})
    loss_fn = UncertaintyWeighting(
        task_losses={"task1": nn.MSELoss(), "task2": nn.CrossEntropyLoss()},
        task_types={"task1": "regression", "task2": "classification"},
    )
    optimizer = optim.Adam([*model.parameters(), *loss_fn.parameters()], lr=1e-3)

    trainer = MultiTaskTrainer(model, loss_fn, optimizer)
    trainer.fit(loader, epochs=10)
    print("uncertainties", loss_fn.get_uncertainties())
    print("weights", loss_fn.get_task_weights())


if __name__ == "__main__":
    main()
