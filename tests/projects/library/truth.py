"""The library guide's trainer, metric functions, and a subclass of its criterion with its own ``forward``."""

from pathlib import Path

import numpy as np
from sklearn.metrics import mean_squared_error

from tests.projects.support import Arrays, Project, accuracy, cross_entropy


def data(folder: Path) -> None:
    """90 rows, of which 60 are for training; some of their values of the regression are missing."""
    generator = np.random.default_rng(0)
    x = generator.normal(size=(90, 6)).astype(np.float32)
    task_c = x.sum(axis=1, keepdims=True)
    # The total of a criterion with its own forward is a mean of the batches' totals.
    task_c[:60][generator.random(60) < 0.3] = np.nan
    scores = x @ generator.normal(size=(6, 7))
    np.savez(
        folder / "arrays.npz",
        x=x,
        task_a=scores[:, :4].argmax(axis=1),
        task_b=scores[:, 4:].argmax(axis=1),
        task_c=task_c,
    )


def inputs(folder: Path) -> np.ndarray:
    """The rows that are not for training."""
    return np.load(folder / "arrays.npz")["x"][60:]


def expected(folder: Path, predictions: Arrays) -> dict[str, float]:
    """Every row has every label."""
    file = np.load(folder / "arrays.npz")
    values = {}
    for task in ("task_a", "task_b"):
        labels = file[task][60:]
        values[f"loss/{task}"] = cross_entropy(predictions[task], labels)
        values[f"{task}/accuracy"] = accuracy(predictions[task], labels)
    values["loss/task_c"] = float(mean_squared_error(file["task_c"][60:], predictions["task_c"]))
    values["task_c/negative_error"] = -values["loss/task_c"]
    values["loss/total"] = values["loss/task_a"] + values["loss/task_b"] + 0.5 * values["loss/task_c"]
    return values


BATCHES = "system.dataloaders.train.batch_size={}".format
PROJECTS = {"config.yaml": Project(data, expected, inputs, one=(BATCHES(12),), two=(BATCHES(6),))}
