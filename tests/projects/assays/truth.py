"""Twelve assays of the same molecules, most of which had a few: as twelve tasks, and as one head."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
from sklearn.metrics import average_precision_score, log_loss, roc_auc_score

from tests.projects.support import Arrays, Project

NAMES = [f"assay_{number}" for number in range(12)]


def data(folder: Path) -> None:
    """90 molecules, of which 60 are for training; every fourth label is known."""
    generator = np.random.default_rng(0)
    x = generator.normal(size=(90, 10)).astype(np.float32)
    y = (x @ generator.normal(size=(10, 12)) + generator.normal(size=(90, 12)) > 0).astype(np.float32)
    y[generator.random(y.shape) > 0.4] = np.nan
    np.savez(folder / "assays.npz", x=x, y=y)


def held_out(folder: Path) -> tuple[np.ndarray, np.ndarray]:
    """The molecules that are not for training, and their labels."""
    file = np.load(folder / "assays.npz")
    return file["x"][60:], file["y"][60:]


def inputs(folder: Path) -> np.ndarray:
    """The molecules that are predicted."""
    return held_out(folder)[0]


def of_assay(labels: np.ndarray, logits: np.ndarray) -> tuple[float, float, float]:
    """Loss, area under the ROC curve, and average precision over the molecules that were tested."""
    known = ~np.isnan(labels)
    labels, logits = labels[known], logits[known].astype(np.float64)
    probabilities = 1 / (1 + np.exp(-logits))
    return (
        log_loss(labels, probabilities, labels=[0, 1]),
        roc_auc_score(labels, logits),
        average_precision_score(labels, logits),
    )


def of_tasks(folder: Path, predictions: Arrays) -> dict[str, float]:
    """Each assay is a task."""
    labels = held_out(folder)[1]
    expected = {}
    for number, name in enumerate(NAMES):
        loss, area, precision = of_assay(labels[:, number], predictions[name].reshape(-1))
        expected |= {f"loss/{name}": loss, f"{name}/AUROC": area, f"{name}/AveragePrecision": precision}
    expected["loss/total"] = sum(expected[f"loss/{name}"] for name in NAMES)
    return expected


def of_head(folder: Path, predictions: Arrays) -> dict[str, float]:
    """All assays are labels of one task: a label counts, not an assay."""
    labels, logits = held_out(folder)[1], predictions["toxic"]
    loss, _, _ = of_assay(labels.reshape(-1), logits.reshape(-1))
    by_assay = [of_assay(labels[:, number], logits[:, number]) for number in range(12)]
    return {
        "loss/toxic": loss,
        "loss/total": loss,
        "toxic/AUROC": float(np.mean([area for _, area, _ in by_assay])),
        "toxic/AveragePrecision": float(np.mean([precision for _, _, precision in by_assay])),
    }


BATCHES = "system.dataloaders.train.batch_size={}".format
PLAIN = "system.dataloaders.train.shuffle=false", "system.model.dropout=0"


def project(expected: Callable[[Path, Arrays], dict[str, float]], script: str) -> Project:
    return Project(data, expected, inputs, script, PLAIN, one=(BATCHES(12),), two=(BATCHES(6),))


PROJECTS = {"tasks.yaml": project(of_tasks, "script.py"), "one_head.yaml": project(of_head, "one_head.py")}
