"""What is right for a project of this folder, and what its run left, as numpy arrays."""

import csv
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from scipy.special import softmax
from sklearn.metrics import accuracy_score, log_loss

Arrays = dict[str, np.ndarray]


@dataclass(frozen=True)
class Project:
    """A user's project: one config, its script, and what is right for both.

    Its folder has the user's files; ``truth.py`` is not one of them. The config's validation, test and
    prediction loaders have the same rows. The script trains as the config does and prints, as its last line,
    a JSON list of two dicts: the values that each of two trainings logged last, by key.

    Args:
        data: Writes the project's data files into its folder.
        expected: From the folder and the columns of the predictions: the values that an evaluation must log,
            by key without stage and ``/epoch``; computed with numpy and scikit-learn.
        inputs: From the folder: inputs of the predicted rows in order, as the predictor takes them; by task
            if `by_task`.
        script: The file of the script.
        plain: Arguments that leave no random numbers and no batch statistics in the training.
        one: Arguments that give one process the joined batches of two.
        two: Arguments for each of two processes.
        by_task: Whether a row belongs to one task, as with task ids and a `TaskLoader`.
        exempt: By name of a test, without ``test_``, why the project cannot pass it.
    """

    data: Callable[[Path], None]
    expected: Callable[[Path, Arrays], Mapping[str, float]]
    inputs: Callable[[Path], Any]
    script: str = "script.py"
    plain: tuple[str, ...] = ("system.dataloaders.train.shuffle=false",)
    one: tuple[str, ...] = ()
    two: tuple[str, ...] = ()
    by_task: bool = False
    exempt: Mapping[str, str] = field(default_factory=dict)


def weights(run: Path) -> dict[str, torch.Tensor]:
    """The parameters and buffers of the last checkpoint."""
    loaded: dict[str, torch.Tensor] = torch.load(run / "checkpoints/last.ckpt", weights_only=True)[
        "state_dict"
    ]
    return loaded


def assert_same_weights(found: Path, expected: Path, tolerance: float = 0) -> None:
    """Compare the last checkpoints of two runs.

    Args:
        found: The folder of a run.
        expected: The folder of the run that is right.
        tolerance: The largest absolute difference.
    """
    values, right = weights(found), weights(expected)
    assert values.keys() == right.keys()
    for key, value in right.items():
        torch.testing.assert_close(
            values[key], value, rtol=0, atol=tolerance, equal_nan=True, msg=f"{found}: {key}"
        )


def last_values(file: Path) -> dict[str, float]:
    """The last value of each key of a ``metrics.csv``."""
    with file.open() as opened:
        return {key: float(value) for row in csv.DictReader(opened) for key, value in row.items() if value}


def predictions(file: Path) -> Arrays:
    """The columns of a file of predictions."""
    table = pq.read_table(file)
    columns = {name: table[name].combine_chunks() for name in table.column_names}
    return {
        name: column.to_numpy_ndarray()
        if isinstance(column, pa.FixedShapeTensorArray)
        else as_array(column.to_pylist())
        for name, column in columns.items()
    }


def as_array(values: list[Any]) -> np.ndarray:
    """One array, of objects if the rows differ in length or some are missing."""
    lengths = {len(value) if isinstance(value, list) else None for value in values}
    if len(lengths) == 1 and None not in values:
        return np.array(values)
    array = np.empty(len(values), dtype=object)
    array[:] = values
    return array


def in_order(inputs: Any, order: np.ndarray) -> Any:
    """The same inputs in another order: of an array, or of each array of a dict."""
    if isinstance(inputs, Mapping):
        return {name: in_order(array, order) for name, array in inputs.items()}
    return inputs[order]


def count_rows(inputs: Any) -> int:
    """The number of rows of an array, or of a dict of arrays."""
    return count_rows(next(iter(inputs.values()))) if isinstance(inputs, Mapping) else len(inputs)


def assert_close(found: Mapping[str, float], expected: Mapping[str, float], tolerance: float) -> None:
    """Compare values by key; NaN equals NaN.

    Args:
        found: What was measured; it may have more keys.
        expected: What is right.
        tolerance: The largest relative and absolute difference.
    """
    assert expected
    missing = set(expected) - set(found)
    assert not missing, f"{sorted(missing)} not in {sorted(found)}"
    names = list(expected)
    np.testing.assert_allclose(
        [found[name] for name in names],
        [expected[name] for name in names],
        rtol=tolerance,
        atol=tolerance,
        err_msg=str(names),
    )


def cross_entropy(scores: np.ndarray, labels: np.ndarray) -> float:
    """The mean over the rows of the negative logarithm of a label's probability.

    Args:
        scores: Logits, ``(rows, classes)``.
        labels: Classes from 0, ``(rows,)``.
    """
    shares = softmax(np.stack(scores).astype(np.float64), axis=1)
    return float(log_loss(labels, shares, labels=range(shares.shape[1])))


def accuracy(scores: np.ndarray, labels: np.ndarray) -> float:
    """The share of rows whose largest score is their label's."""
    return float(accuracy_score(labels, np.stack(scores).argmax(axis=1)))


def known(column: np.ndarray) -> np.ndarray:
    """Which rows are not null."""
    return np.array([value is not None for value in column])
