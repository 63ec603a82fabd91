"""A classification and a segmentation with a criterion of one's own, laid out as in the config tutorial."""

from pathlib import Path

import numpy as np
from sklearn.metrics import jaccard_score

from tests.projects.support import Arrays, Project, accuracy, cross_entropy


def data(folder: Path) -> None:
    """90 images of 8 by 8 pixels and four classes, of which 60 are for training."""
    generator = np.random.default_rng(0)
    labels = generator.integers(0, 4, 90)
    images = generator.normal(size=(90, 1, 8, 8)) + labels[:, None, None, None]
    (folder / ".datasets").mkdir()
    np.savez(folder / ".datasets/shapes.npz", images=images.astype(np.float32), labels=labels)


def held_out(folder: Path) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Images, classes and masks that are not for training."""
    file = np.load(folder / ".datasets/shapes.npz")
    labels = file["labels"][60:]
    masks = np.zeros((30, 8, 8), dtype=np.int64)
    masks[labels < 2, 2:6, 2:6] = 1
    return file["images"][60:], labels, masks


def inputs(folder: Path) -> np.ndarray:
    """The images after the transform."""
    return held_out(folder)[0] / 2


def expected(folder: Path, predictions: Arrays) -> dict[str, float]:
    """Every image and every pixel has a label."""
    _, labels, masks = held_out(folder)
    scores = predictions["segmentation"].transpose(0, 2, 3, 1).reshape(-1, 2)
    values = {
        "loss/classification": cross_entropy(predictions["classification"], labels),
        "classification/Accuracy": accuracy(predictions["classification"], labels),
        "loss/segmentation": cross_entropy(scores, masks.reshape(-1)),
        "segmentation/JaccardIndex": jaccard_score(masks.reshape(-1), scores.argmax(axis=1), average="macro"),
    }
    values["loss/total"] = values["loss/classification"] + 0.5 * values["loss/segmentation"]
    return values


BATCHES = "system.dataloaders.train.batch_size={}".format
PROJECTS = {"config.yaml": Project(data, expected, inputs, one=(BATCHES(12),), two=(BATCHES(6),))}
