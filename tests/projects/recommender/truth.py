"""A shop's users and items, some of them new; a purchase is known only after a click."""

from pathlib import Path

import numpy as np
from scipy.special import expit
from sklearn.metrics import average_precision_score, log_loss, roc_auc_score

from tests.projects.support import Arrays, Project

TASKS = ("click", "bought")


def data(folder: Path) -> None:
    """72 views for training, and 40 for the test, of which some have a user or an item that is new."""
    generator = np.random.default_rng(0)
    taste = generator.normal(size=(20, 15))
    columns = {}
    for part, rows, least in (("train", 72, 1), ("test", 40, 0)):
        # As the model sees them: 0 is anyone, or anything, that is new. Equal scores would have no order.
        pairs = [(user, item) for user in range(least, 13) for item in range(least, 10)]
        user, item = np.array(pairs)[generator.permutation(len(pairs))[:rows]].T
        click = (taste[user, item] + 0.3 * generator.normal(size=rows) > 0).astype(np.float32)
        bought = (taste[user, item] > 0.7).astype(np.float32)
        bought[click == 0] = np.nan
        columns |= {f"{part}_click": click, f"{part}_bought": bought}
        columns[f"{part}_user"] = np.where(user, user, 13 + generator.integers(0, 3, rows))
        columns[f"{part}_item"] = np.where(item, item, 10 + generator.integers(0, 3, rows))
    np.savez(folder / "views.npz", **columns)


def inputs(folder: Path) -> dict[str, np.ndarray]:
    """The ids of the test's views."""
    file = np.load(folder / "views.npz")
    return {name: file[f"test_{name}"] for name in ("user", "item")}


def expected(folder: Path, predictions: Arrays) -> dict[str, float]:
    """Purchases count among clicked views only."""
    file = np.load(folder / "views.npz")
    if "view" in predictions:
        views = [f"{user}-{item}" for user, item in zip(file["test_user"], file["test_item"], strict=True)]
        assert predictions["view"].tolist() == views
    values = {}
    for task in TASKS:
        labels, logits = file[f"test_{task}"], predictions[task].astype(np.float64)
        labels, logits = labels[~np.isnan(labels)], logits[~np.isnan(labels)]
        values |= {
            f"loss/{task}": log_loss(labels, expit(logits)),
            f"{task}/AUROC": roc_auc_score(labels, logits),
        }
        if "view" in predictions:
            values[f"{task}/AveragePrecision"] = average_precision_score(labels, logits)
    values["loss/total"] = values["loss/click"] + values["loss/bought"]
    return values


BATCHES = "system.dataloaders.train.batch_size={}".format
PROJECTS = {
    "config.yaml": Project(data, expected, inputs, one=(BATCHES(12),), two=(BATCHES(6),)),
    "sparse.yaml": Project(data, expected, inputs, "sparse.py", one=(BATCHES(12),), two=(BATCHES(6),)),
}
