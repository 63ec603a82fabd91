"""What the commands do, once their words are parsed: check, fit, validate, test, predict."""

import argparse
import os
import sys
import warnings
from collections.abc import Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any, TextIO

import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import Checkpoint, ModelCheckpoint
from pytorch_lightning.loggers import TensorBoardLogger
from pytorch_lightning.utilities.exceptions import SIGTERMException
from rich.console import Console

from polytask import runs
from polytask._console import plain_console
from polytask._errors import UserError
from polytask._lightning._noise import SILENT, Silence, quieten_loggers, silence
from polytask._lightning._training import overwrite_checkpoint
from polytask.callbacks import ExactResume, StopOnSignal
from polytask.callbacks._checkpoints import ConfigInCheckpoint, KeptCheckpoint
from polytask.callbacks._progress import ProgressReport, results_table
from polytask.config import Config, closest
from polytask.data._loader_errors import data_errors
from polytask.diagnostics._columns import FOLDER
from polytask.diagnostics._recorder import Recorder
from polytask.experiment._build import make_loaders, make_system, own_callbacks
from polytask.experiment._problems import find_problems
from polytask.runs import Run, _environment
from polytask.runs._checkpoints import (
    check_optimizer,
    load_weights,
    read_checkpoint,
)
from polytask.runs._csv_logger import CSVLogger
from polytask.runs._lookup import (
    find_checkpoint,
    find_run,
    initial_weights,
    project_name,
    read_config,
    saved_config,
)
from polytask.runs._predictions import PredictionWriter
from polytask.system import System
from polytask.system._stages import STAGES

_RUN = "POLYTASK_RUN"
_STAGE = {"fit": "train", "validate": "val", "test": "test", "predict": "predict"}


def check(config: Config) -> int:
    """Print every problem of a config.

    Returns:
        0 where there is none, else 2.
    """
    _quieten()
    problems = find_problems(config)
    for problem in problems:
        print(f"error: {' '.join(str(problem).split())}", file=sys.stderr)
    if problems:
        print(f"{len(problems)} problem{'s' * (len(problems) > 1)}", file=sys.stderr)
        return 2
    print("no problems")
    return 0


def run(options: argparse.Namespace) -> int:
    """Run ``fit``, ``validate``, ``test`` or ``predict``.

    Args:
        options: The parsed command line.

    Returns:
        0.

    Raises:
        UserError: Where the options or the config cannot be used.
    """
    _quieten()
    console = plain_console(options.quiet or _is_other_device())
    if options.command == "fit":
        return _fit(options, console)
    return _evaluate(options, console)


# ---- fit --------------------------------------------------------------------------------------


def _fit(options: argparse.Namespace, console: Console) -> int:
    run, config = _resumed(options, console) if options.resume else (None, read_config(options))
    _raise_problems(config, options)
    system = make_system(config, make_loaders(config, ("train", "val")))
    start = None if run is None else run.checkpoint("last")
    weights = start if options.ckpt is None else initial_weights(options, config)
    if weights is not None:
        checkpoint = read_checkpoint(weights)
        load_weights(system, checkpoint, str(weights))
        if run is not None and system.optimizer_factory is not None:
            optimizer = system.optimizer_factory.optimizer(system.model, system.criterion)
            check_optimizer(optimizer, checkpoint, str(weights))
    if options.dry_run:
        return _dry_run(system, config, console)
    if run is None:
        run = _new_run(options, config)
    stop = StopOnSignal(run.checkpoint("last"))
    try:
        locked = nullcontext() if _is_other_device() else run.locked()
        with locked, run.kept_if_begun(), data_errors(system.dataloaders):
            if not _is_other_device():
                config.dump(run.config)
            trainer = _trainer(config, run, _fit_callbacks(config, run, stop, console))
            if not _is_other_device():
                noted = _environment.environment(_device(trainer), config.project or Path.cwd())
                _environment.keep(run.folder, noted)
            trainer.fit(system, ckpt_path=start, weights_only=True)
    except SIGTERMException:
        if stop.stopped is not None:
            console.print(
                f"stopped by {stop.stopped.signal} in epoch {stop.stopped.epoch + 1} after step "
                f"{stop.stopped.step}; go on with: polytask fit --resume --run-dir {run.folder}"
            )
        raise
    values = {key: float(value) for key, value in trainer.callback_metrics.items()}
    for stage in ("train", "val"):
        if any(key.startswith(f"{stage}/") for key in values):
            console.print(results_table(values, stage, system.names))
    if system.skipped:
        console.print(f"{system.skipped} steps were skipped: no label, or a loss that was not finite")
    _say(f"run: {run.folder}")
    return 0


def _is_other_device() -> bool:
    """Whether this process serves another device than the first, which does the talking."""
    return os.environ.get("LOCAL_RANK", "0") != "0"


def _say(text: str) -> None:
    """Print what scripts read, quiet or not."""
    if not _is_other_device():
        print(text)


def _new_run(options: argparse.Namespace, config: Config) -> Run:
    """A new run's folder; processes that Lightning starts for other devices join that of the first."""
    if _is_other_device() and _RUN in os.environ:
        return Run(Path(os.environ[_RUN]))
    run = runs.create(project_name(config, options), options.run_dir)
    os.environ[_RUN] = str(run.folder)
    return run


def _resumed(options: argparse.Namespace, console: Console) -> tuple[Run, Config]:
    """The run to go on with, and its config."""
    if options.ckpt is not None:
        raise UserError(
            "--ckpt", "loads weights only and does not go with --resume", None, "Drop one of them"
        )
    if options.dry_run:
        raise UserError("--dry-run", "does not go with --resume", None, "Drop one of them")
    config = read_config(options)
    run = find_run(options, config, "last", options.run_dir)
    checkpoint = read_checkpoint(run.checkpoint("last"))
    console.print(
        f"resuming {run.folder} at step {checkpoint['global_step']}: model, optimizer, scheduler, weighting, "
        "epoch, data order and random states"
    )
    if changed := closest(saved_config(run).plain, config.plain):
        console.print(f"changed since: {', '.join(changed)}")
    return run, config


def _fit_callbacks(config: Config, run: Run, stop: StopOnSignal, console: Console) -> list[pl.Callback]:
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
    report = ProgressReport(console)
    return [*callbacks, *best, last, stop, ConfigInCheckpoint(config.plain), report, ExactResume()]


def _best(config: Config, run: Run, given: Sequence[ModelCheckpoint]) -> list[pl.Callback]:
    """What makes ``best.ckpt``: the first monitor that is given, else the total validation loss."""
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
        raise UserError(
            "trainer._target_", "must be pytorch_lightning.Trainer or a subclass", type(trainer).__name__
        )
    return trainer


def _device(trainer: pl.Trainer) -> str:
    """Which devices, in words."""
    device, number = trainer.strategy.root_device, trainer.num_devices * trainer.num_nodes
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else device.type
    return name if number == 1 else f"{number} x {name}"


def _dry_run(system: System, config: Config, console: Console) -> int:
    plain = config.plain["trainer"]
    given = {**SILENT, "fast_dev_run": 1, "callbacks": []}
    trainer = config.build("trainer", {**given, "max_epochs": plain.get("max_epochs", 1)})
    system.dataloaders = make_loaders(config, STAGES)
    stages = [stage for stage in STAGES if stage in system.dataloaders]
    with data_errors(system.dataloaders):
        if "train" in stages:
            trainer.fit(system)
        if "test" in stages:
            trainer.test(system, verbose=False)
        if "predict" in stages:
            trainer.predict(system, return_predictions=False)
    console.print(f"dry run: one batch of {', '.join(stages)} went through")
    return 0


# ---- validate, test, predict ------------------------------------------------------------------


def _evaluate(options: argparse.Namespace, console: Console) -> int:
    stage = _STAGE[options.command]
    config = (
        None if not options.config and options.ckpt not in (None, "best", "last") else read_config(options)
    )
    path, run, config = find_checkpoint(options, config)
    _raise_problems(config, options)
    system = make_system(config, make_loaders(config, (stage,)))
    load_weights(system, read_checkpoint(path), str(path))
    console.print(f"checkpoint: {path}")
    trainer = _evaluator(options, config, run)
    if stage == "predict":
        with data_errors(system.dataloaders):
            trainer.predict(system, return_predictions=False)
        if not options.dry_run:
            _say(f"predictions: {run.predictions}")
        return 0
    evaluate = trainer.validate if stage == "val" else trainer.test
    with data_errors(system.dataloaders):
        evaluate(system, verbose=False)
    values = {key: float(value) for key, value in trainer.callback_metrics.items()}
    console.print(results_table(values, stage, system.names))
    _say(f"run: {run.folder}")
    return 0


def _evaluator(options: argparse.Namespace, config: Config, run: Run) -> pl.Trainer:
    given: dict[str, Any] = {
        **SILENT,
        "callbacks": [callback for callback in own_callbacks(config) if not isinstance(callback, Checkpoint)],
        "default_root_dir": str(run.folder),
    }
    if options.dry_run:
        given["fast_dev_run"] = 1
    elif options.command == "predict":
        given["callbacks"].append(PredictionWriter(run.predictions))
    else:
        given["logger"] = [CSVLogger(run.folder / options.command)]
    trainer: pl.Trainer = config.build("trainer", given)
    return trainer


# ---- parts of every command -------------------------------------------------------------------


def _raise_problems(config: Config, options: argparse.Namespace) -> None:
    problems = find_problems(config)
    if len(problems) > 1:
        where, rule, found, fix = problems[0].args
        lists = ": `polytask check` lists them all" if options.config else ""
        more = f"({len(problems) - 1} more{lists})"
        raise UserError(where, rule, found, more if fix is None else f"{fix.rstrip('.')} {more}")
    if problems:
        raise problems[0]


def _quieten() -> None:
    """One line for each warning, and none of Lightning's advertisements."""
    quieten_loggers()
    silence(Silence.COMMAND)
    warnings.showwarning = _show_warning


def _show_warning(
    message: Warning | str,
    category: type[Warning],
    filename: str,
    lineno: int,
    file: TextIO | None = None,
    line: str | None = None,
) -> None:
    print(f"warning: {' '.join(str(message).split())}", file=sys.stderr)
