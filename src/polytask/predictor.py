"""Trained models that predict on arrays, and how one is loaded from a run or a checkpoint."""

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

# How messages of the command line name what is an argument here.
_OPTION = re.compile(r"--(ckpt|run-dir|project) ?")


class Predictor:
    """A trained model that predicts on arrays. Made by `load`.

    Args:
        system: The System that was trained; its ``adapters.logging`` says what is predicted of an output,
            as for `polytask predict`.
        device: ``cpu``, ``cuda``, ``cuda:1``, ``mps``.

    Attributes:
        model: The model, for everything that is not a prediction on arrays.
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
        """Predictions by task, a row for each input.

        Args:
            inputs: One array, or a dict of arrays where the model takes one; numpy arrays, tensors, or paths
                of ``.npy`` files.
            batch_size: Rows that are computed at once.

        Returns:
            By task an array ``(rows, ...)``.

        Raises:
            UserError: Where the inputs do not fit the model.
        """
        return predict_rows(self._system, self._outputs, inputs, batch_size)

    def _outputs(self, inputs: Any) -> dict[str, Tensor]:
        # A batch that is found already: what a loader would yield does not matter here.
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

    A run's folder is trusted as its config is: the code of its project is imported. A checkpoint file is not:
    its project is imported only where ``project`` names it.

    Args:
        path: A run's folder, of which the best checkpoint is taken; a folder of runs, of which the newest is;
            or a checkpoint file that polytask wrote.
        project: The folder whose modules the model is made of, in place of the one that the config names.
        device: ``cpu``, ``cuda``, ``cuda:1``, ``mps``.

    Raises:
        UserError: Where there is no such run or checkpoint, or it does not fit its config.
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
        rule = "the checkpoint carries no config"
        raise UserError(str(file), rule, None, "Build the model, and load its state_dict")
    folder = None if project is None else Path(project)
    return Config.from_plain(checkpoint[CONFIG], where=str(file), project=folder)


def _unseeded(config: Config) -> System:
    """The config's System; the random states of whoever loads it stay as they are."""
    state = full_state()
    try:
        return make_system(config, {})
    finally:
        set_full_state(state)
