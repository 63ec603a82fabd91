"""Validate, test and predict: a checkpoint's metrics or predictions."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import pytorch_lightning as pl
from pytorch_lightning.callbacks import Checkpoint

from polytask._lightning._interrupts import interrupts
from polytask._lightning._noise import SILENT
from polytask._lightning._training import widen
from polytask.config import Config
from polytask.data._loader_errors import data_errors
from polytask.experiment._builders import make_loaders, make_system, own_callbacks
from polytask.experiment._problems import raise_problems
from polytask.experiment._processes import RunProcesses
from polytask.experiment._reporter import Reporter
from polytask.runs import Run
from polytask.runs._checkpoints import load_weights, read_checkpoint
from polytask.runs._csv_logger import CSVLogger
from polytask.runs._lookup import Found, Selection
from polytask.runs._prediction_writer import PredictionWriter
from polytask.system import System

# The folder in a run's that an evaluation of each stage is logged in.
_FOLDER = {"val": "validate", "test": "test"}


@dataclass(frozen=True)
class Evaluated:
    """The metrics of a checkpoint.

    Attributes:
        run: The run's folder.
        stage: ``val`` or ``test``.
        values: Logged values by log key.
        tasks: Task names, in order.
    """

    run: Path
    stage: str
    values: Mapping[str, float]
    tasks: tuple[str, ...]


def evaluate(
    selection: Selection, stage: Literal["val", "test"], reporter: Reporter, *, dry_run: bool = False
) -> Evaluated:
    """Compute the metrics of a checkpoint, and log them in the run's folder.

    Args:
        selection: Which config and checkpoint.
        stage: On which data.
        reporter: Receives what happens meanwhile.
        dry_run: Whether one batch is enough, and nothing is written.

    Raises:
        UserError: If the config, the checkpoint or the data cannot be used.
    """
    with interrupts():
        found = selection.find_checkpoint()
        run, config = found.run, found.config
        raise_problems(config, bool(selection.files))
        given: dict[str, Any] = {} if dry_run else {"logger": [CSVLogger(run.folder / _FOLDER[stage])]}
        trainer = _trainer(config, run, given, dry_run)
        with _loaded(found, stage, trainer, reporter) as system:
            run_stage = trainer.validate if stage == "val" else trainer.test
            run_stage(system, verbose=False)
    values = {key: float(value) for key, value in trainer.callback_metrics.items()}
    return Evaluated(run.folder, stage, values, tuple(system.names))


def predict(
    selection: Selection, reporter: Reporter, *, dry_run: bool = False, targets: bool = False
) -> Path:
    """Write the predictions of a checkpoint.

    Args:
        selection: Which config and checkpoint.
        reporter: Receives what happens meanwhile.
        dry_run: Whether one batch is enough, and nothing is written.
        targets: Whether the targets are written too.

    Returns:
        The folder of the predictions.

    Raises:
        UserError: If the config, the checkpoint or the data cannot be used.
    """
    with interrupts():
        found = selection.find_checkpoint()
        run, config = found.run, found.config
        raise_problems(config, bool(selection.files))
        writers = [] if dry_run else [PredictionWriter(run.predictions, class_names(config))]
        trainer = _trainer(config, run, {"callbacks": writers}, dry_run)
        with _loaded(found, "predict", trainer, reporter) as system:
            system.predicts_targets = targets
            trainer.predict(system, return_predictions=False)
    return run.predictions


def class_names(config: Config) -> dict[str, list[str]]:
    """The names of the classes by task, where the config's data sets are given them.

    Args:
        config: The config.

    Example:
        >>> names = {"dataset": {"classes": {"sold": ["no", "yes"], "digit": 10}}}
        >>> plain = {"system": {"dataloaders": {"train": names}}}
        >>> class_names(Config.from_plain(plain, where="config.yaml"))
        {'sold': ['no', 'yes']}
    """
    found: dict[str, list[str]] = {}
    waiting: list[Any] = [config.plain.get("vars"), config.plain["system"].get("dataloaders")]
    while waiting:
        node = waiting.pop()
        if isinstance(node, list):
            waiting += node
        elif isinstance(node, dict):
            waiting += node.values()
            given = node.get("classes")
            for task, names in given.items() if isinstance(given, dict) else ():
                if isinstance(names, list):
                    found.setdefault(task, [str(name) for name in names])
    return found


@contextmanager
def _loaded(found: Found, stage: str, trainer: pl.Trainer, reporter: Reporter) -> Iterator[System]:
    """The system with a checkpoint's weights, once every process of the trainer has it."""

    def load() -> System:
        system = make_system(found.config, make_loaders(found.config, (stage,)))
        widen(trainer, system)
        load_weights(system, read_checkpoint(found.path), str(found.path))
        return system

    processes = RunProcesses(trainer)
    reporter.started(processes.is_first)
    system = processes.on_each(load)
    reporter.loading(found.path, found.differing)
    with processes.ending_together(), data_errors(system.dataloaders):
        yield system


def _trainer(config: Config, run: Run, given: Mapping[str, Any], dry_run: bool) -> pl.Trainer:
    callbacks = [callback for callback in own_callbacks(config) if not isinstance(callback, Checkpoint)]
    arguments = {**SILENT, "default_root_dir": str(run.folder), **given}
    arguments["callbacks"] = [*callbacks, *given.get("callbacks", ())]
    if dry_run:
        arguments["fast_dev_run"] = 1
    trainer: pl.Trainer = config.build("trainer", arguments)
    return trainer
