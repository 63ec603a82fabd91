import numpy as np

from polytask.data import ArrayDataset
from polytask.losses import MultiTaskLoss


class Arrays(ArrayDataset):
    """The arrays of the guide's third example: two classifications and a regression."""

    def __init__(self, begin, end):
        file = np.load("arrays.npz")
        super().__init__(
            file["x"][begin:end],
            {name: file[name][begin:end] for name in ("task_a", "task_b", "task_c")},
            classes={"task_a": 4, "task_b": 3},
        )


class CustomWeighting(MultiTaskLoss):
    """The guide's own weighting: a weight for each task, by its name."""

    def __init__(self, task_losses, custom_param=1.0):
        super().__init__(task_losses)
        self.custom_param = custom_param

    def forward(self, outputs, targets, return_dict=False):
        task_losses = self.compute_task_losses(outputs, targets)
        weighted = {name: self.compute_custom_weight(name) * loss for name, loss in task_losses.items()}
        total_loss = sum(weighted.values())
        if return_dict:
            return total_loss, task_losses
        return total_loss

    def compute_custom_weight(self, task_name):
        return self.custom_param if task_name == "task_c" else 1.0


def accuracy(predictions, targets):
    return float((predictions.argmax(axis=1) == targets).mean())


def negative_error(predictions, targets):
    return float(-np.mean((predictions - targets) ** 2))
