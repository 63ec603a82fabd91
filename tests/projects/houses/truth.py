"""A CSV file with numbers, categories, booleans and gaps, and four targets of different kinds."""

from pathlib import Path

import numpy as np
import pandas as pd
import torch
from sklearn.metrics import cohen_kappa_score, mean_absolute_error, r2_score

from tests.projects.support import Arrays, Project, accuracy, cross_entropy

STYLES = ["flat", "house", "villa"]


def data(folder: Path) -> None:
    """60 houses for training and 35 for the test, one of which is in a city that is new."""
    generator = np.random.default_rng(0)
    for part, rows in (("train", 60), ("test", 35)):
        rooms = generator.integers(1, 9, rows)
        area = rooms * 20.0 + generator.normal(size=rows)
        frame = pd.DataFrame(
            {
                "rooms": rooms,
                "area": np.where(generator.random(rows) < 0.2, np.nan, area),
                "city": generator.choice(["Bern", "Rome", "Oslo"], rows),
                "garden": generator.random(rows) < 0.5,
                "sold": (rooms > 4).astype(int),
                "style": np.array(STYLES)[np.minimum(rooms // 3, 2)],
                "price": 1000 * (50 + 30 * rooms + generator.integers(0, 20, rows)) + 0.5,
                "grade": np.minimum(rooms // 2, 3),
            }
        )
        if part == "test":
            frame.loc[3, "city"] = "Lima"
        for column, share in (("sold", 0.3), ("style", 0.2), ("price", 0.3), ("grade", 0.2)):
            frame[column] = frame[column].astype(object).mask(generator.random(rows) < share)
        frame.to_csv(folder / f"{part}.csv", index=False)


def inputs(folder: Path) -> dict[str, np.ndarray]:
    """What the training rows make of the test's columns."""
    from polytask.data import TableColumns, TableDataset

    columns = TableColumns(["rooms", "area"], ["city", "garden"])
    TableDataset(folder / "train.csv", columns, train=True)
    encoded = TableDataset(folder / "test.csv", columns).take(torch.arange(35))[0]
    return {name: column.numpy() for name, column in encoded.items()}


def expected(folder: Path, predictions: Arrays) -> dict[str, float]:
    """Each target counts the houses that have it."""
    frame = pd.read_csv(folder / "test.csv")
    known = {name: frame[name].notna().to_numpy() for name in ("sold", "style", "price", "grade")}
    scores = {name: predictions[name][rows] for name, rows in known.items()}
    sold, grade = (frame[name][known[name]].astype(int).to_numpy() for name in ("sold", "grade"))
    style = frame["style"][known["style"]].map(STYLES.index).to_numpy()
    assert predictions["style.label"].tolist() == [STYLES[row.argmax()] for row in predictions["style"]]
    price, found = frame["price"][known["price"]].to_numpy(), scores["price"][:, 0]
    error = np.abs(price - found)
    levels = scores["grade"].argmax(axis=1)
    values = {
        "loss/sold": cross_entropy(scores["sold"], sold),
        "sold/Accuracy": accuracy(scores["sold"], sold),
        "loss/style": cross_entropy(scores["style"], style),
        "style/Accuracy": accuracy(scores["style"], style),
        "loss/price": float(np.where(error < 1000, error**2 / 2, 1000 * (error - 500)).mean()),
        "price/MeanAbsoluteError": mean_absolute_error(price, found),
        "price/R2Score": r2_score(price, found),
        "loss/grade": float(-scores["grade"][np.arange(len(grade)), grade].mean()),
        "grade/kappa": cohen_kappa_score(grade, levels, weights="quadratic", labels=range(4)),
    }
    weighed = values["loss/sold"] + values["loss/style"] + 1e-6 * values["loss/price"] + values["loss/grade"]
    return {**values, "loss/total": weighed}


BATCHES = "system.dataloaders.train.batch_size={}".format
PROJECTS = {
    "config.yaml": Project(
        data,
        expected,
        inputs,
        plain=("system.dataloaders.train.shuffle=false",),
        one=(BATCHES(12),),
        two=(BATCHES(6),),
    )
}
