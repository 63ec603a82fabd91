"""Trained models that predict on arrays, loaded from a run or a checkpoint; none of it imports Lightning."""

import random
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from polytask import runs
from polytask._errors import UserError
from polytask._tasks import check_known
from polytask.arrays._placement import placement
from polytask.arrays._predict_rows import predict_rows
from polytask.arrays._trained_model import TrainedModel
from polytask.batch import Batch, count_rows
from polytask.config import Config
from polytask.data._random_state import states_kept
from polytask.losses import MultiTaskLoss
from polytask.losses._for_model import criterion_for
from polytask.runs._checkpoints import CONFIG, load_weights, read_checkpoint
from polytask.runs._lookup import saved_config
from polytask.system._stages import adapters_by_stage, by_stage
from polytask.system._task_order import measured_tasks, task_names

if TYPE_CHECKING:
    from polytask.system import System

# Arguments in the messages of the command line that have another name here.
_OPTION = re.compile(r"--(ckpt|run-dir|project) ?")
_SYSTEM = ("polytask.System", "polytask.system.System")


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
        >>> from polytask import System
        >>> from polytask.models import MLP, create_hard_sharing_model
        >>> model = create_hard_sharing_model(MLP(4, [8], 8), {"digit": {"output_dim": 10}})
        >>> predictor = Predictor(System(model, nn.CrossEntropyLoss()))
        >>> predictor.predict(np.zeros((3, 4)))["digit"].shape
        (3, 10)
    """

    def __init__(self, system: "System | TrainedModel", device: str | torch.device = "cpu") -> None:
        placement(device)
        self._system = system.eval().to(device)
        self.model: nn.Module = system.model
        self.names: tuple[str, ...] = system.names

    def predict(
        self, inputs: Any, batch_size: int = 1024, task: str | None = None
    ) -> dict[str, NDArray[Any]]:
        """Predictions by task, one row for each input.

        Args:
            inputs: One array, or a dict of arrays if the model takes a dict; numpy arrays, tensors, or paths
                of ``.npy`` files.
            batch_size: The number of rows in a batch.
            task: For a model that is called with task ids, the task of these rows.

        Returns:
            By task an array ``(rows, ...)``.

        Raises:
            UserError: If the inputs do not fit the model, or the task is unknown.
        """
        if task is not None:
            check_known([task], self.names, "task")
        rows: dict[str, Tensor | None] | None = None if task is None else {task: None}

        def outputs(own: Any) -> dict[str, Tensor]:
            # A `Batch` is not adapted again: the batch adapter is for what a loader yields.
            batch = Batch(own, None, count_rows(own), rows)
            found: dict[str, Tensor] = self._system.predict_step(batch, 0)["outputs"]
            return found

        return predict_rows(self._system, outputs, inputs, batch_size)

    def __repr__(self) -> str:
        return f"Predictor({type(self.model).__name__}, tasks={list(self.names)})"


def load(
    path: str | Path, *, project: str | Path | None = None, device: str | torch.device = "cpu"
) -> Predictor:
    """A trained model, ready to predict on arrays.

    A run's folder is trusted as its config is: the code of its project is imported. A checkpoint file is not:
    its project is imported only if ``project`` names it. Lightning is not imported, unless the project or a
    subclass of `polytask.System` imports it.

    Args:
        path: A run's folder, whose best checkpoint is loaded; a folder of runs, whose newest run is loaded;
            or a checkpoint file that polytask wrote.
        project: The folder with the modules of the model, instead of the one that the config names.
        device: ``cpu``, ``cuda``, ``cuda:1``, ``mps``.

    Raises:
        UserError: If there is no such run or checkpoint, or it does not fit its config.

    Example:
        In a project that was trained::

            predictor = load("runs/digits")
            predictor.predict(images)["digit"]
    """
    try:
        return Predictor(_trained(Path(path), project), device)
    except UserError as error:
        fix = error.fix and _OPTION.sub("project=", error.fix)
        raise error.at(_OPTION.sub("", error.where) or str(path), fix) from error


def _trained(path: Path, project: str | Path | None) -> "System | TrainedModel":
    run = runs.latest(path) if path.is_dir() else None
    file = path if run is None else run.checkpoint("best")
    checkpoint = read_checkpoint(file)
    config = _carried(checkpoint, file, project) if run is None or project is not None else saved_config(run)
    system = _unseeded(config)
    load_weights(system, _without_metrics(system, checkpoint), str(file))
    return system


def _carried(checkpoint: dict[str, Any], file: Path, project: str | Path | None) -> Config:
    """The config in a checkpoint."""
    if CONFIG not in checkpoint:
        rule = "the checkpoint must contain its config"
        raise UserError(str(file), rule, "none", "Build the model, and load its state_dict")
    folder = None if project is None else Path(project)
    return Config.from_plain(checkpoint[CONFIG], where=str(file), project=folder)


def _without_metrics(system: nn.Module, checkpoint: dict[str, Any]) -> dict[str, Any]:
    """The checkpoint without the tensors of metrics, if they are not needed to predict."""
    if not isinstance(system, TrainedModel):
        return checkpoint
    saved = checkpoint["state_dict"]
    return {"state_dict": {name: saved[name] for name in saved if not name.startswith("record.")}}


def _unseeded(config: Config) -> "System | TrainedModel":
    """The config's System, or what it predicts with; the caller's random states are not changed."""
    seed = config.seed or 0
    with states_kept():
        random.seed(seed)
        np.random.seed(seed)
        torch.manual_seed(seed)
        system = config.plain.get("system")
        if isinstance(system, dict) and system.get("_target_") in _SYSTEM:
            return _trained_model(config)
        # A subclass may predict in its own way.
        from polytask.experiment._builders import make_system

        return make_system(config, {})


def _trained_model(config: Config) -> TrainedModel:
    """Model, criterion and adapter, built in the order of a training."""
    wanted = [key for key in ("model", "criterion", "adapters") if f"system.{key}" in config]
    parts = {key: config.build(f"system.{key}") for key in wanted}
    for key in ("model", "criterion"):
        if not isinstance(parts.get(key), nn.Module):
            raise UserError(key, "must be a torch.nn.Module", type(parts.get(key)).__name__)
    model = parts["model"]
    named = isinstance(parts["criterion"], MultiTaskLoss) or getattr(model, "task_names", None)
    # Building metrics imports torchmetrics.
    given = None if named or "system.metrics" not in config else config.build("system.metrics")
    metrics = by_stage(given, "metrics")
    criterion = criterion_for(model, parts["criterion"], measured_tasks(metrics))
    adapter = adapters_by_stage(parts.get("adapters"))["predict"]["logging"]
    return TrainedModel(model, criterion, task_names(model, criterion, metrics), adapter)
