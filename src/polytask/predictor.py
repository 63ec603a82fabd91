"""Trained models that predict on arrays, loaded from a run or a checkpoint."""

import re
from pathlib import Path
from typing import Any

import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from polytask import runs
from polytask._errors import UserError
from polytask.arrays._predict_rows import predict_rows
from polytask.arrays._session import placement
from polytask.batch import Batch, count_rows
from polytask.config import Config
from polytask.data._random_state import full_state, set_full_state
from polytask.experiment._builders import make_system
from polytask.runs._checkpoints import CONFIG, load_weights, read_checkpoint
from polytask.runs._lookup import saved_config
from polytask.system import System

# Options of the command line in messages; here they are arguments.
_OPTION = re.compile(r"--(ckpt|run-dir|project) ?")


class Predictor:
    """A trained model that predicts on arrays. Made by `load`.

    Args:
        system: The System that was trained; its ``adapters.logging`` transforms outputs to predictions, as
            for `polytask predict`.
        device: ``cpu``, ``cuda``, ``cuda:1``, ``mps``.

    Attributes:
        model: The model, for any use other than predicting on arrays.
        names: The tasks, in order.

    Example:
        >>> import numpy as np
        >>> from polytask.models import MLP, create_hard_sharing_model
        >>> model = create_hard_sharing_model(MLP(4, [8], 8), {"digit": {"output_dim": 10}})
        >>> predictor = Predictor(System(model, nn.CrossEntropyLoss()))
        >>> predictor.predict(np.zeros((3, 4)))["digit"].shape
        (3, 10)
    """

    def __init__(self, system: System, device: str | torch.device = "cpu") -> None:
        placement(device)
        self._system = system.eval().to(device)
        self.model: nn.Module = system.model
        self.names = system.names

    def predict(self, inputs: Any, batch_size: int = 1024) -> dict[str, NDArray[Any]]:
        """Predictions by task, one row for each input.

        Args:
            inputs: One array, or a dict of arrays if the model takes a dict; numpy arrays, tensors, or paths
                of ``.npy`` files.
            batch_size: The number of rows in a batch.

        Returns:
            By task an array ``(rows, ...)``.

        Raises:
            UserError: If the inputs do not fit the model.
        """
        return predict_rows(self._system, self._outputs, inputs, batch_size)

    def _outputs(self, inputs: Any) -> dict[str, Tensor]:
        # A `Batch` is not adapted again: the batch adapter is for what a loader yields.
        outputs: dict[str, Tensor] = self._system.predict_step(Batch(inputs, None, count_rows(inputs)), 0)[
            "outputs"
        ]
        return outputs

    def __repr__(self) -> str:
        return f"Predictor({type(self.model).__name__}, tasks={list(self.names)})"


def load(
    path: str | Path, *, project: str | Path | None = None, device: str | torch.device = "cpu"
) -> Predictor:
    """A trained model, ready to predict on arrays.

    A run's folder is trusted like its config: the code of its project is imported. A checkpoint file is not
    trusted: its project is imported only if ``project`` is given.

    Args:
        path: A run's folder, whose best checkpoint is loaded; a folder of runs, whose newest run is loaded;
            or a checkpoint file that polytask wrote.
        project: The folder with the modules of the model, instead of the one that the config names.
        device: ``cpu``, ``cuda``, ``cuda:1``, ``mps``.

    Raises:
        UserError: If there is no such run or checkpoint, or it does not fit its config.
    """
    try:
        return Predictor(_system(Path(path), project), device)
    except UserError as error:
        fix = error.fix and _OPTION.sub("project=", error.fix)
        raise error.at(_OPTION.sub("", error.where) or str(path), fix) from error


def _system(path: Path, project: str | Path | None) -> System:
    run = runs.latest(path) if path.is_dir() else None
    file = path if run is None else run.checkpoint("best")
    checkpoint = read_checkpoint(file)
    config = _carried(checkpoint, file, project) if run is None or project is not None else saved_config(run)
    system = _unseeded(config)
    load_weights(system, checkpoint, str(file))
    return system


def _carried(checkpoint: dict[str, Any], file: Path, project: str | Path | None) -> Config:
    """The config in a checkpoint."""
    if CONFIG not in checkpoint:
        rule = "the checkpoint must contain its config"
        raise UserError(str(file), rule, "none", "Build the model, and load its state_dict")
    folder = None if project is None else Path(project)
    return Config.from_plain(checkpoint[CONFIG], where=str(file), project=folder)


def _unseeded(config: Config) -> System:
    """The config's System, built without a change to the global random states."""
    state = full_state()
    try:
        return make_system(config, {})
    finally:
        set_full_state(state)
