"""Which digit, and is it odd: one CNN backbone for scikit-learn's 8 x 8 digits."""

import argparse

import torch
import torch.nn as nn
from sklearn.datasets import load_digits

from polytask.data import create_multitask_dataloader
from polytask.losses import MultiTaskLoss
from polytask.metrics import accuracy
from polytask.models import SimpleCNN, create_hard_sharing_model
from polytask.trainer import MultiTaskTrainer


def main(epochs: int) -> dict[str, float]:
    digits = load_digits()
    images, labels = digits.images[:, None] / 16, digits.target
    targets = {"digit": labels, "parity": labels % 2}
    train = create_multitask_dataloader(images[:1400], {t: y[:1400] for t, y in targets.items()}, seed=0)
    val = create_multitask_dataloader(
        images[1400:],
        {t: y[1400:] for t, y in targets.items()},
        batch_size=256,
        shuffle=False,
    )

    torch.manual_seed(0)
    backbone = SimpleCNN(in_channels=1, num_classes=64, img_size=8)
    tasks = {"digit": {"output_dim": 10}, "parity": {"output_dim": 2}}
    model = create_hard_sharing_model(backbone, tasks, representation_dim=64)
    loss_fn = MultiTaskLoss(dict.fromkeys(tasks, nn.CrossEntropyLoss()), {"parity": 0.5})
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)

    trainer = MultiTaskTrainer(model, loss_fn, optimizer, metric_fns=dict.fromkeys(tasks, accuracy))
    history = trainer.fit(train, val, epochs=epochs)
    return {task: history[f"val/{task}/accuracy/epoch"][-1] for task in tasks}


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--epochs", type=int, default=10)
    print(main(parser.parse_args().epochs))
