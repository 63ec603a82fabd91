"""Several inputs, one of which is missing for some rows, and targets as a list."""

from pathlib import Path

import numpy as np
from sklearn.metrics import f1_score, mean_absolute_error

from tests.projects.support import Arrays, Project, accuracy, cross_entropy


def data(folder: Path) -> None:
    """95 patients, of whom 60 are for training; some diseases and ages are unknown."""
    generator = np.random.default_rng(0)
    disease = generator.integers(0, 3, 95)
    table = (generator.normal(size=(95, 3)) + np.eye(3)[disease]).astype(np.float32)
    time = np.linspace(0, 6, 32)
    signal = np.sin(time * (1 + disease[:, None])) + 0.3 * generator.normal(size=(95, 32))
    age = (40 + 10 * disease + 5 * table[:, 0]).astype(np.float32)
    age[generator.random(95) < 0.3] = np.nan
    labels = np.where(generator.random(95) < 0.2, -100, disease)
    np.savez(
        folder / "patients.npz",
        signal=signal.astype(np.float32),
        table=table,
        measured=generator.random(95) < 0.7,
        disease=labels,
        age=age,
    )


def inputs(folder: Path) -> dict[str, np.ndarray]:
    """The patients who are not for training."""
    file = np.load(folder / "patients.npz")
    return {name: file[name][60:] for name in ("signal", "table", "measured")}


def expected(folder: Path, predictions: Arrays) -> dict[str, float]:
    """Each task counts the patients with its label."""
    file = np.load(folder / "patients.npz")
    disease, age = file["disease"][60:], file["age"][60:]
    ill, old = disease != -100, ~np.isnan(age)
    scores, labels = predictions["disease"][ill], disease[ill]
    values = {
        "loss/disease": cross_entropy(scores, labels),
        "disease/Accuracy": accuracy(scores, labels),
        "disease/F1Score": f1_score(labels, scores.argmax(axis=1), average="macro"),
        "loss/age": mean_absolute_error(age[old], predictions["age"][old]),
    }
    values["age/MeanAbsoluteError"] = values["loss/age"]
    values["loss/total"] = values["loss/disease"] + 0.1 * values["loss/age"]
    return values


BATCHES = "system.dataloaders.train.batch_size={}".format
PROJECTS = {"config.yaml": Project(data, expected, inputs, one=(BATCHES(6),), two=(BATCHES(3),))}
