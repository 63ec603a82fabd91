"""A network of a physical field: few measurements, and the residual of its equation at every point."""

from pathlib import Path

import numpy as np
from sklearn.metrics import mean_squared_error, r2_score

from tests.projects.support import Arrays, Project


def data(folder: Path) -> None:
    """90 points, of which 60 are for training, with the exact solution at some of them."""
    generator = np.random.default_rng(0)
    x = generator.uniform(size=(90, 2)).astype(np.float32)
    u = (np.sin(np.pi * x[:, :1]) * np.exp(-(np.pi**2) * x[:, 1:])).astype(np.float32)
    u[generator.random(90) < 0.6] = np.nan
    np.savez(folder / "points.npz", x=x, u=u)


def inputs(folder: Path) -> np.ndarray:
    """The points that are not for training."""
    return np.load(folder / "points.npz")["x"][60:]


def expected(folder: Path, predictions: Arrays) -> dict[str, float]:
    """The temperature counts where it was measured, the residual everywhere."""
    u = np.load(folder / "points.npz")["u"][60:]
    measured = ~np.isnan(u)
    values = {
        "loss/temperature": mean_squared_error(u[measured], predictions["temperature"][measured]),
        "temperature/R2Score": r2_score(u[measured], predictions["temperature"][measured]),
        "loss/residual": float(np.square(predictions["residual"]).mean()),
    }
    for task in ("temperature", "residual"):
        values[f"{task}/MeanSquaredError"] = values[f"loss/{task}"]
    values["loss/total"] = values["loss/temperature"] + values["loss/residual"]
    return values


BATCHES = "system.dataloaders.train.batch_size={}".format
PROJECTS = {"config.yaml": Project(data, expected, inputs, one=(BATCHES(12),), two=(BATCHES(6),))}
