"""The base of all recorders: values stay on the device, and are written at the end of each epoch."""

from abc import ABC
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple

import pytorch_lightning as pl
import torch
from torch import Tensor

from polytask._checks import check_integer
from polytask._errors import UserError
from polytask.diagnostics._columns import FOLDER, Columns
from polytask.system import System
from polytask.system._task_backward import TaskBackward

if TYPE_CHECKING:
    from polytask.diagnostics._store import RecordFile, RecordRow

# Recorded steps on the device before they are copied to the host, if nothing is logged.
_MOST = 1024


class RecordedStep(NamedTuple):
    """The values of one step, on the device: a row for each key."""

    step: int
    epoch: int
    keys: Sequence[tuple[str, ...]]
    values: Tensor


class Recorder(pl.Callback, ABC):
    """Writes a file of records while a `polytask.System` trains.

    Values stay on the device until ``log_every_n_steps``, when they are copied together. Rows are written at
    the end of each epoch, before each checkpoint, and when the training ends, also with an error; the latest
    rows are in additional files until then. A resumed run removes the rows of the steps that it repeats. With
    several processes the first one writes.

    Args:
        every: The number of optimizer steps per recorded step.
        folder: The folder of the file; ``records`` in the run's folder if None.
    """

    file: ClassVar[str]
    columns: ClassVar[Columns]

    def __init__(self, every: int, folder: str | Path | None) -> None:
        self.every = check_integer(every, f"{type(self).__name__}.every", 1)
        self.folder = None if folder is None else Path(folder)
        self._entries: list[RecordedStep] = []
        self._rows: list[RecordRow] = []
        self._store: RecordFile | None = None
        self._last = -1

    # ---- what a recorder says -------------------------------------------------------------

    def notes(self, task_backward: TaskBackward) -> Mapping[str, str]:
        """Metadata of the file."""
        return {}

    def due(self, trainer: pl.Trainer) -> bool:
        """Whether the current step is recorded."""
        return trainer.global_step % self.every == 0

    def add(self, trainer: pl.Trainer, keys: Sequence[tuple[str, ...]], values: Tensor) -> None:
        """Record a step's values.

        Args:
            trainer: The trainer, for the step.
            keys: For each row the columns between the epoch and its values; nothing is recorded without any.
            values: The rows' values, on the device: ``(keys,)``, or ``(keys, columns)``.
        """
        if not keys:
            return
        rows = values.detach().reshape(len(keys), -1)
        self._entries.append(RecordedStep(trainer.global_step, trainer.current_epoch, keys, rows))
        self._last = trainer.global_step
        if len(self._entries) >= _MOST:
            self._read()

    def task_backward_of(self, system: pl.LightningModule) -> TaskBackward:
        """The part of a system that fills gradients.

        Raises:
            UserError: If it has none.
        """
        if not isinstance(system, System):
            raise UserError(type(self).__name__, "requires a polytask.System", type(system).__name__)
        if system.task_backward is None:
            rule = "requires the losses by task of a polytask.losses.MultiTaskLoss"
            raise UserError(type(self).__name__, rule, type(system.criterion).__name__)
        return system.task_backward

    # ---- Lightning's hooks ----------------------------------------------------------------

    def on_fit_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Check that the system can be recorded, and that no other recorder writes the file."""
        self.task_backward_of(pl_module)
        callbacks = trainer.callbacks  # type: ignore[attr-defined]
        alike = [other for other in callbacks if isinstance(other, Recorder) and other.file == self.file]
        if len(alike) > 1:
            raise UserError(
                "trainer.callbacks", f"must have one recorder that writes {self.file}", f"{len(alike)}"
            )

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Open the file; remove the rows that a resumed run makes again."""
        self._entries, self._rows, self._last = [], [], -1
        folder = self.folder or Path(trainer.default_root_dir) / FOLDER
        writes = trainer.is_global_zero and not trainer.fast_dev_run  # type: ignore[attr-defined]
        self._store = None
        if writes:
            from polytask.diagnostics._store import RecordFile, schema_of

            store = RecordFile(folder / self.file, schema_of(self.columns))
            store.cut(trainer.global_step)
            self._store = store

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Copy the values to the host every ``log_every_n_steps`` steps."""
        every: int = trainer.log_every_n_steps  # type: ignore[attr-defined]
        if every and trainer.global_step % every == 0:
            self._read()

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Write the rows."""
        self._write(pl_module)

    def on_save_checkpoint(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        """Write, so that a run resumed from the checkpoint has all earlier rows."""
        self._write(pl_module)

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Write all rows as one file."""
        self._finish(pl_module)

    def on_exception(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, exception: BaseException
    ) -> None:
        """Write the rows so far."""
        self._finish(pl_module)

    def _read(self) -> None:
        entries, self._entries = self._entries, []
        if not entries or self._store is None:
            return
        # One copy to the host, whatever the number of entries.
        values = iter(torch.cat([entry.values for entry in entries]).tolist())
        self._rows += [
            (entry.step, entry.epoch, *key, *next(values)) for entry in entries for key in entry.keys
        ]

    def _write(self, system: pl.LightningModule) -> None:
        self._read()
        if self._rows and self._store is not None:
            rows, self._rows = self._rows, []
            self._store.append(rows, self.notes(self.task_backward_of(system)))

    def _finish(self, system: pl.LightningModule) -> None:
        self._write(system)
        if self._store is not None:
            self._store.finish()
