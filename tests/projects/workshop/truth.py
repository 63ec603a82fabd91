"""Digits and their parity: a model that returns a list, and batches that are dicts."""

from pathlib import Path

import numpy as np

from tests.projects.support import Arrays, Project, accuracy, cross_entropy


def data(folder: Path) -> None:
    """100 pictures of five digits, of which 70 are for training."""
    generator = np.random.default_rng(0)
    labels = generator.integers(0, 5, 100)
    patterns = generator.normal(size=(5, 4, 4))
    images = (patterns[labels] + generator.normal(size=(100, 4, 4))).astype(np.float32)
    np.savez(folder / "digits.npz", images=images, labels=labels)


def inputs(folder: Path) -> np.ndarray:
    """The pictures that are not for training."""
    return np.load(folder / "digits.npz")["images"][70:].reshape(30, 16)


def expected(folder: Path, predictions: Arrays) -> dict[str, float]:
    """Both tasks have a label for each picture."""
    digits = np.load(folder / "digits.npz")["labels"][70:]
    values = {}
    for name, labels in (("digit", digits), ("parity", digits % 2)):
        values[f"loss/{name}"] = cross_entropy(predictions[name], labels)
        values[f"{name}/Accuracy"] = accuracy(predictions[name], labels)
    values["loss/total"] = values["loss/digit"] + 0.5 * values["loss/parity"]
    return values


BATCHES = "system.dataloaders.train.batch_size={}".format
PROJECTS = {"config.yaml": Project(data, expected, inputs, one=(BATCHES(10),), two=(BATCHES(5),))}
