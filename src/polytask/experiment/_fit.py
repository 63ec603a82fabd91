"""Fit: train a new run, or resume one."""

import os
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import ModelCheckpoint
from pytorch_lightning.loggers import TensorBoardLogger
from pytorch_lightning.utilities.exceptions import SIGTERMException

from polytask import runs
from polytask._errors import UserError
from polytask._lightning._interrupts import interrupts
from polytask._lightning._training import overwrite_checkpoint
from polytask.callbacks import ExactResume, StopOnSignal
from polytask.callbacks._kept_checkpoint import ConfigInCheckpoint, KeptCheckpoint
from polytask.callbacks._progress import ProgressReport
from polytask.config import Config, closest
from polytask.data._loader_errors import data_errors
from polytask.diagnostics._columns import FOLDER
from polytask.diagnostics._recorder import Recorder
from polytask.experiment._builders import make_loaders, make_system, own_callbacks
from polytask.experiment._problems import raise_problems
from polytask.experiment._processes import is_first_process
from polytask.experiment._reporter import Reporter
from polytask.runs import Run, _environment
from polytask.runs._checkpoints import check_optimizer, load_weights, read_checkpoint
from polytask.runs._csv_logger import CSVLogger
from polytask.runs._lookup import Selection, project_name, saved_config

# Processes that Lightning starts for other devices find the run's folder here.
_RUN = "POLYTASK_RUN"


@dataclass(frozen=True)
class Fitted:
    """What a training gave.

    Attributes:
        run: The run's folder.
        values: The last logged values by log key.
        tasks: Task names, in order.
        skipped: Steps without a label, or with a loss or gradient that was not finite.
    """

    run: Path
    values: Mapping[str, float]
    tasks: tuple[str, ...]
    skipped: int


def fit(selection: Selection, reporter: Reporter, *, resume: bool = False) -> Fitted:
    """Train a run and keep its best and last checkpoint.

    Args:
        selection: Which config; for a new run the checkpoint whose weights it starts from and its folder, for
            one that is resumed its folder or a folder of runs.
        reporter: Receives what happens meanwhile.
        resume: Whether the newest run with this config is resumed.

    Raises:
        UserError: If the config, a checkpoint, a folder or the data cannot be used.
        RunError: If the training fails.
        SystemExit: After a signal, once the checkpoint to resume from is written.
        KeyboardInterrupt: If there was no time to write it.
    """
    with interrupts():
        return _fit(selection, reporter, resume)


def _fit(selection: Selection, reporter: Reporter, resume: bool) -> Fitted:
    run, config = _resumed(selection, reporter) if resume else (None, selection.read_config())
    raise_problems(config, bool(selection.files))
    system = make_system(config, make_loaders(config, ("train", "val")))
    start = None if run is None else run.checkpoint("last")
    weights = selection.initial_weights(config) if run is None else start
    if weights is not None:
        checkpoint = read_checkpoint(weights)
        load_weights(system, checkpoint, str(weights))
        if run is not None and system.optimizer_factory is not None:
            optimizer = system.optimizer_factory.optimizer(system.model, system.criterion)
            check_optimizer(optimizer, checkpoint, str(weights))
    if run is None:
        run = _new_run(selection, config)
    stop = StopOnSignal(run.checkpoint("last"))
    first = is_first_process()
    try:
        with run.locked() if first else nullcontext(), run.kept_if_begun(), data_errors(system.dataloaders):
            if first:
                config.dump(run.config)
            trainer = _trainer(config, run, _callbacks(config, run, stop, reporter))
            if first:
                noted = _environment.environment(_device(trainer), config.project or Path.cwd())
                _environment.keep(run.folder, noted)
            trainer.fit(system, ckpt_path=start, weights_only=True)
    except SIGTERMException:
        if stop.stopped is not None:
            at = stop.stopped
            reporter.stopped(run.folder, at.signal, at.epoch, at.step)
        raise
    values = {key: float(value) for key, value in trainer.callback_metrics.items()}
    return Fitted(run.folder, values, tuple(system.names), system.skipped)


def _new_run(selection: Selection, config: Config) -> Run:
    """A new run's folder; processes that Lightning starts for other devices join that of the first."""
    if not is_first_process() and _RUN in os.environ:
        return Run(Path(os.environ[_RUN]))
    run = runs.create(project_name(config, selection.files), selection.run_dir)
    os.environ[_RUN] = str(run.folder)
    return run


def _resumed(selection: Selection, reporter: Reporter) -> tuple[Run, Config]:
    """The run to resume, and its config."""
    if selection.checkpoint is not None:
        rule = "loads weights only and cannot be combined with --resume"
        raise UserError("--ckpt", rule, None, "Leave one of them out")
    config = selection.read_config()
    run = selection.find_run(config, "last", selection.run_dir)
    checkpoint = read_checkpoint(run.checkpoint("last"))
    changed = closest(saved_config(run).plain, config.plain)
    reporter.resuming(run.folder, checkpoint["global_step"], changed)
    return run, config


def _callbacks(config: Config, run: Run, stop: StopOnSignal, reporter: Reporter) -> list[pl.Callback]:
    callbacks = own_callbacks(config)
    for callback in callbacks:
        if isinstance(callback, Recorder) and callback.folder is None:
            callback.folder = run.folder / FOLDER
    checkpoints = [callback for callback in callbacks if isinstance(callback, ModelCheckpoint)]
    for callback in checkpoints:
        if callback.dirpath is None:
            callback.dirpath = str(run.checkpoints)
    best = _best(config, run, checkpoints)
    last = KeptCheckpoint(run.checkpoints, "last")
    progress = ProgressReport(reporter.console)
    return [*callbacks, *best, last, stop, ConfigInCheckpoint(config.plain), progress, ExactResume()]


def _best(config: Config, run: Run, given: Sequence[ModelCheckpoint]) -> list[pl.Callback]:
    """What writes ``best.ckpt``: by the first monitor of the config, else by the total validation loss."""
    monitoring = [callback for callback in given if callback.monitor is not None]
    if not monitoring:
        has_val = "system.dataloaders.val" in config
        return [KeptCheckpoint(run.checkpoints, "best", "val/loss/total/epoch")] if has_val else []
    first = monitoring[0]
    if first.filename is None and first.save_top_k == 1:
        first.filename = "best"
        overwrite_checkpoint(first)
        return []
    return [KeptCheckpoint(run.checkpoints, "best", first.monitor, first.mode)]


def _trainer(config: Config, run: Run, callbacks: Sequence[pl.Callback]) -> pl.Trainer:
    plain = config.plain["trainer"]
    given: dict[str, Any] = {"callbacks": list(callbacks)}
    if plain.get("logger") in (None, True):
        given["logger"] = [
            CSVLogger(run.folder),
            TensorBoardLogger(run.folder, name="tensorboard", version=""),
        ]
    defaults = {
        "default_root_dir": str(run.folder),
        "enable_progress_bar": False,
        "enable_model_summary": False,
    }
    given |= {key: value for key, value in defaults.items() if key not in plain}
    trainer = config.build("trainer", given)
    if not isinstance(trainer, pl.Trainer):
        rule = "must be pytorch_lightning.Trainer or a subclass"
        raise UserError("trainer._target_", rule, type(trainer).__name__)
    return trainer


def _device(trainer: pl.Trainer) -> str:
    """The name of the devices, and how many there are if more than one."""
    device, number = trainer.strategy.root_device, trainer.num_devices * trainer.num_nodes
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else device.type
    return name if number == 1 else f"{number} x {name}"
