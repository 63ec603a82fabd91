"""Dense vision: pixels without a class, holes in depth maps, and normals that are known in places."""

from pathlib import Path

import numpy as np
from sklearn.metrics import jaccard_score, mean_absolute_error, mean_squared_error

from tests.projects.support import Arrays, Project, accuracy, cross_entropy


def data(folder: Path) -> None:
    """35 images of 8 by 8 pixels, of which 24 are for training."""
    generator = np.random.default_rng(0)
    image = generator.normal(size=(35, 3, 8, 8)).astype(np.float32)
    segment = np.concatenate([image, 0 * image[:, :1]], axis=1).argmax(axis=1)
    segment[generator.random(segment.shape) < 0.2] = 255
    depth = (2 + image.sum(axis=1)).astype(np.float32)
    depth[generator.random(depth.shape) < 0.3] = np.nan
    # One depth map is a hole, as a sensor that failed gives it.
    depth[25] = np.nan
    normal = image / np.linalg.norm(image, axis=1, keepdims=True)
    unknown = generator.random((35, 1, 8, 8)) < 0.25
    np.savez(
        folder / "rooms.npz",
        image=image,
        segment=segment,
        depth=depth,
        normal=np.where(unknown, np.nan, normal).astype(np.float32),
    )


def inputs(folder: Path) -> np.ndarray:
    """The images that are not for training."""
    return np.load(folder / "rooms.npz")["image"][24:]


def expected(folder: Path, predictions: Arrays) -> dict[str, float]:
    """Each pixel that has a label counts once."""
    file = {name: array[24:] for name, array in np.load(folder / "rooms.npz").items()}
    known = file["segment"] != 255
    scores, labels = predictions["segment"].transpose(0, 2, 3, 1)[known], file["segment"][known]
    measured, normals = ~np.isnan(file["depth"]), ~np.isnan(file["normal"])
    depth, found = file["depth"][measured], predictions["depth"][measured]
    values = {
        "loss/segment": cross_entropy(scores, labels),
        "segment/Accuracy": accuracy(scores, labels),
        "segment/JaccardIndex": jaccard_score(labels, scores.argmax(axis=1), average="macro"),
        "loss/depth": mean_absolute_error(depth, found),
        "depth/MeanSquaredError": float(np.sqrt(mean_squared_error(depth, found))),
        "loss/normal": mean_squared_error(file["normal"][normals], predictions["normal"][normals]),
    }
    values["depth/MeanAbsoluteError"] = values["loss/depth"]
    values["normal/MeanSquaredError"] = values["loss/normal"]
    values["loss/total"] = sum(values[f"loss/{task}"] for task in ("segment", "depth", "normal"))
    return values


# Two processes have images with other numbers of labelled pixels: the counts are added up over both.
BATCHES = "system.dataloaders.train.batch_size={}".format
PROJECTS = {"config.yaml": Project(data, expected, inputs, one=(BATCHES(4),), two=(BATCHES(2),))}
