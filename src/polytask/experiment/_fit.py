"""Fit: train a new run, or resume one."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
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
from polytask._lightning._training import overwrite_checkpoint, set_root_dir, widen
from polytask.callbacks import ExactResume, StopOnSignal
from polytask.callbacks._kept_checkpoint import ConfigInCheckpoint, KeptCheckpoint
from polytask.callbacks._progress import ProgressReport
from polytask.config import Config
from polytask.data._loader_errors import data_errors
from polytask.diagnostics._columns import FOLDER
from polytask.diagnostics._recorder import Recorder
from polytask.experiment._builders import make_loaders, make_system, own_callbacks
from polytask.experiment._problems import raise_problems
from polytask.experiment._processes import RunProcesses
from polytask.experiment._reporter import Reporter
from polytask.experiment._resumption import check_length, kept_values, why_finished
from polytask.runs import Run, _environment
from polytask.runs._checkpoints import check_optimizer, load_weights, read_checkpoint
from polytask.runs._csv_logger import CSVLogger
from polytask.runs._lookup import Selection, differing, project_name, saved_config
from polytask.system import System
from polytask.system._given import GIVEN
from polytask.system._optimizers import Optimization


@dataclass(frozen=True)
class Fitted:
    """Result of a training.

    Attributes:
        run: The run's folder.
        values: The last logged values by log key.
        tasks: Task names, in order.
        skipped: Steps without a label, or with a loss or gradient that was not finite.
        epochs: The epoch, from 0, in which each stage was last measured, as far as is known.
    """

    run: Path
    values: Mapping[str, float]
    tasks: tuple[str, ...]
    skipped: int
    epochs: Mapping[str, int]


@dataclass(frozen=True)
class _Former:
    """A run that is resumed.

    Attributes:
        run: Its folder.
        step: The steps made.
        changed: The keys of the config that differ.
        kept: What was changed and has no effect.
        config: The text of its config file.
    """

    run: Run
    step: int
    changed: list[str]
    kept: list[str]
    config: str


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
    if resume and selection.checkpoint is not None:
        rule = "loads weights only and cannot be combined with --resume"
        raise UserError("--ckpt", rule, None, "Leave one of them out")
    config = selection.read_config()
    raise_problems(config, bool(selection.files))
    trainer = _trainer(config, reporter)
    processes = RunProcesses(trainer)
    reporter.started(processes.is_first)
    system, former = processes.on_each(lambda: _prepared(selection, config, trainer, resume))
    with ExitStack() as held, data_errors(system.dataloaders):
        device = _device(trainer)
        run = _opened(processes, lambda: held.enter_context(_writing(selection, config, former, device)))
        if former is not None:
            reporter.resuming(run.folder, former.step, former.changed)
            if former.kept:
                reporter.without_effect(former.kept)
        _place(trainer, config, run)
        try:
            with processes.ending_together():
                start = None if former is None else run.checkpoint("last")
                trainer.fit(system, ckpt_path=start, weights_only=True)
        except SIGTERMException:
            _report_stop(trainer, run, reporter)
            raise
        if former is not None and trainer.global_step == former.step:
            reporter.finished(run.folder, *why_finished(trainer))
            if processes.is_first:
                # The run is not one of the config that it was asked to continue with.
                run.config.write_text(former.config)
    values = {key: float(value) for key, value in trainer.callback_metrics.items()}
    return Fitted(run.folder, values, tuple(system.names), system.skipped, system.record.epochs)


def _prepared(
    selection: Selection, config: Config, trainer: pl.Trainer, resume: bool
) -> tuple[System, "_Former | None"]:
    """The system with the weights that it starts from, and the run to resume."""
    system = make_system(config, make_loaders(config, ("train", "val")))
    widen(trainer, system)
    if resume:
        run = selection.find_run(config, "last", selection.run_dir, whole=True)
        weights = run.checkpoint("last")
        checkpoint = read_checkpoint(weights)
        check_length(config, checkpoint)
        changed = differing(run, config)
        kept = kept_values(system, saved_config(run), changed, checkpoint)
        load_weights(system, checkpoint, str(weights))
        if GIVEN not in checkpoint and system.optimizer_factory is not None:
            made = Optimization.of(
                system.optimizer_factory, system.scheduler_factory, system.model, system.criterion
            )
            check_optimizer(made.optimizer, checkpoint, str(weights))
        return system, _Former(run, checkpoint["global_step"], changed, kept, run.config.read_text())
    if (start := selection.initial_weights(config)) is not None:
        load_weights(system, read_checkpoint(start), str(start))
    return system, None


def _opened(processes: RunProcesses, open_run: Callable[[], Run]) -> Run:
    """The run's folder, which the first process opens; the others may work in another folder."""
    run, base = processes.on_first(lambda: (open_run(), Path.cwd()))
    return run if processes.is_first else Run(base / run.folder)


@contextmanager
def _writing(selection: Selection, config: Config, former: "_Former | None", device: str) -> Iterator[Run]:
    """A new run's folder, or the resumed one, with config and environment in it.

    It is locked during the block, and restored if a user's mistake ends it.
    """
    run = _new_run(selection, config) if former is None else former.run
    with run.locked(), run.kept_if_begun():
        config.dump(run.config)
        _environment.keep(run.folder, _environment.environment(device, config.project or Path.cwd()))
        yield run


def _new_run(selection: Selection, config: Config) -> Run:
    return runs.create(project_name(config, selection.files), selection.run_dir)


def _report_stop(trainer: pl.Trainer, run: Run, reporter: Reporter) -> None:
    for callback in trainer.callbacks:  # type: ignore[attr-defined]
        if isinstance(callback, StopOnSignal) and callback.stopped is not None:
            at = callback.stopped
            reporter.stopped(run.folder, at.signal, at.epoch, at.step)


def _place(trainer: pl.Trainer, config: Config, run: Run) -> None:
    """Make the trainer, its callbacks and its loggers write into the run's folder."""
    given = config.plain["trainer"]
    for callback in trainer.callbacks:  # type: ignore[attr-defined]
        if isinstance(callback, Recorder) and callback.folder is None:
            callback.folder = run.folder / FOLDER
        if isinstance(callback, ModelCheckpoint) and callback.dirpath is None:
            callback.dirpath = str(run.checkpoints)
        if isinstance(callback, StopOnSignal):
            callback.path = run.checkpoint("last")
    if "default_root_dir" not in given:
        set_root_dir(trainer, str(run.folder))
    if given.get("logger") in (None, True):
        board = TensorBoardLogger(run.folder, name="tensorboard", version="")
        trainer.loggers = [CSVLogger(run.folder), board]


def _callbacks(config: Config, reporter: Reporter) -> list[pl.Callback]:
    callbacks = own_callbacks(config)
    checkpoints = [callback for callback in callbacks if isinstance(callback, ModelCheckpoint)]
    best = _best(config, checkpoints)
    last = KeptCheckpoint("last")
    progress = ProgressReport(reporter.console)
    return [
        *(*callbacks, *best, last, StopOnSignal("last.ckpt")),
        *(ConfigInCheckpoint(config.plain), progress, ExactResume()),
    ]


def _best(config: Config, given: Sequence[ModelCheckpoint]) -> list[pl.Callback]:
    """What writes ``best.ckpt``: by the first monitor of the config, else by the total validation loss."""
    monitoring = [callback for callback in given if callback.monitor is not None]
    if not monitoring:
        limit = config.plain["trainer"].get("limit_val_batches")
        has_val = "system.dataloaders.val" in config and (limit is None or limit != 0)
        return [KeptCheckpoint("best", "val/loss/total/epoch")] if has_val else []
    first = monitoring[0]
    if first.filename is None and first.save_top_k == 1:
        first.filename = "best"
        overwrite_checkpoint(first)
        return []
    return [KeptCheckpoint("best", first.monitor, first.mode)]


def _trainer(config: Config, reporter: Reporter) -> pl.Trainer:
    """The trainer, before the run's folder is known: its cluster environment says which process makes it."""
    plain = config.plain["trainer"]
    given: dict[str, Any] = {"callbacks": _callbacks(config, reporter)}
    if plain.get("logger") in (None, True):
        given["logger"] = False
    defaults = {"enable_progress_bar": False, "enable_model_summary": False}
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
