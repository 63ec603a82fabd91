"""A model that is called with a task id, on rows that belong to one task each."""

from pathlib import Path

import numpy as np
from sklearn.metrics import mean_squared_error

from tests.projects.support import Arrays, Project, accuracy, cross_entropy, known

TASKS = ("first", "second", "third")


def data(folder: Path) -> None:
    """95 rows, of which 60 are for training, with classes from 0 to 3."""
    generator = np.random.default_rng(0)
    x = generator.normal(size=(95, 6)).astype(np.float32)
    task = generator.integers(0, 3, 95)
    scores = np.einsum("ri,rij->rj", x, generator.normal(size=(3, 6, 4))[task])
    np.savez(folder / "rows.npz", data=x, target=scores.argmax(axis=1), task=task)


def held_out(folder: Path) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Inputs, targets and tasks of the rows that are not for training."""
    file = np.load(folder / "rows.npz")
    return file["data"][60:], file["target"][60:], file["task"][60:]


def inputs(folder: Path) -> dict[str, np.ndarray]:
    """The rows of each task."""
    x, _, task = held_out(folder)
    return {name: x[task == number] for number, name in enumerate(TASKS)}


def of_tasks(folder: Path, predictions: Arrays) -> dict[str, float]:
    """Every task is a classification."""
    _, target, task = held_out(folder)
    values = {}
    for number, name in enumerate(TASKS):
        own = known(predictions[name])
        np.testing.assert_array_equal(own, task == number)
        values[f"loss/{name}"] = cross_entropy(predictions[name][own], target[own])
        values[f"{name}/Accuracy"] = accuracy(predictions[name][own], target[own])
    values["loss/total"] = sum(values[f"loss/{name}"] for name in TASKS)
    return values


def of_widths(folder: Path, predictions: Arrays) -> dict[str, float]:
    """The third task is a regression, and the second one has no metric."""
    _, target, task = held_out(folder)
    first, second, third = (np.stack(predictions[name][task == number]) for number, name in enumerate(TASKS))
    values = {
        "loss/first": cross_entropy(first, target[task == 0]),
        "first/Accuracy": accuracy(first, target[task == 0]),
        "loss/second": cross_entropy(second, target[task == 1]),
        "loss/third": float(mean_squared_error(target[task == 2], third[:, 0])),
    }
    values["third/MeanSquaredError"] = values["loss/third"]
    values["loss/total"] = sum(values[f"loss/{name}"] for name in TASKS)
    return values


BATCHES = "system.dataloaders.train.batch_size={}".format
PROJECTS = {
    "mixed.yaml": Project(data, of_tasks, inputs, one=(BATCHES(12),), two=(BATCHES(6),), by_task=True),
    "widths.yaml": Project(
        data, of_widths, inputs, "widths.py", one=(BATCHES(12),), two=(BATCHES(6),), by_task=True
    ),
}
