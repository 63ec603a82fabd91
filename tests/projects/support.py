"""What is known of a project in this folder, and what its run left, as numpy arrays."""

import csv
import os
import signal
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from pytorch_lightning import Callback

Arrays = dict[str, np.ndarray]
# The place at which `Stopping` stops, of which a config says nothing.
PLACE = "PROJECT_STOPS_AT"


@dataclass(frozen=True)
class Project:
    """A user's project, and what is right for it.

    Its folder has the user's files; ``truth.py`` is not one of them. Validation, test and prediction loaders
    of the config have the same rows.

    Args:
        data: Writes the project's data files into its folder.
        expected: From the folder and the predictions by task, in the order of the data: the values that an
            evaluation must log, without stage and ``/epoch``; computed with numpy and scikit-learn.
        inputs: The inputs of the predicted rows in order, as `polytask.load(...).predict` takes them.
        one: Words of the command that give one process the joined batches of two.
        two: Words of the command for each of two processes.
        exempt: By invariant why it cannot hold.
    """

    data: Callable[[Path], None]
    expected: Callable[[Path, Arrays], Mapping[str, float]]
    inputs: Callable[[Path], Any]
    one: tuple[str, ...] = ()
    two: tuple[str, ...] = ()
    exempt: Mapping[str, str] = field(default_factory=dict)


class Stopping(Callback):
    """Stops a run as Ctrl-C does, in a place that an environment variable names: a hook and a number of calls."""

    def __init__(self) -> None:
        self.calls = 0

    def _called(self, hook: str) -> None:
        wanted, _, number = os.environ.get(PLACE, "").partition(":")
        if wanted == hook:
            self.calls += 1
            if self.calls == int(number):
                os.kill(os.getpid(), signal.SIGINT)

    def on_train_batch_end(self, *_: Any) -> None:
        """After a training batch."""
        self._called("train")

    def on_validation_batch_end(self, trainer: Any, *_: Any) -> None:
        """After a validation batch of a training."""
        if not trainer.sanity_checking:
            self._called("val")


def weights(run: Path) -> dict[str, torch.Tensor]:
    """The parameters and buffers of the last checkpoint."""
    loaded: dict[str, torch.Tensor] = torch.load(run / "checkpoints/last.ckpt", weights_only=True)["state_dict"]
    return loaded


def rows(file: Path) -> list[dict[str, str]]:
    """The rows of a ``metrics.csv``."""
    with file.open() as opened:
        return list(csv.DictReader(opened))


def last_values(file: Path) -> dict[str, float]:
    """The last value of each key of a ``metrics.csv``."""
    return {key: float(value) for row in rows(file) for key, value in row.items() if value}


def assert_close(found: Mapping[str, float], expected: Mapping[str, float], tolerance: float) -> None:
    """Compare values by key; NaN equals NaN.

    Args:
        found: What was measured; it may have more keys.
        expected: What is right.
        tolerance: The largest relative and absolute difference.
    """
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
