"""The progress of a run: a bar on a terminal, plain lines elsewhere."""

import math
import time
from collections.abc import Iterable
from typing import Any

import pytorch_lightning as pl
from rich.console import Console, RenderableType
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.text import Text

from polytask.system import System


class _Bar(Progress):
    """A bar and, under it, values that are wrapped on a narrow terminal."""

    values = ""

    def get_renderables(self) -> Iterable[RenderableType]:
        yield from super().get_renderables()
        if self.values:
            # The command's console does not wrap lines.
            yield Text(self.values, no_wrap=False, overflow="fold")


class ProgressReport(pl.Callback):
    """Shows the loss of each task and its main metric, which is the first one given.

    On a terminal there is a bar for the epoch; elsewhere, a line at the end of each epoch.

    Args:
        console: The console to print to.

    Example:
        >>> ProgressReport(Console()).console.is_terminal
        False
    """

    def __init__(self, console: Console) -> None:
        self.console = console
        self._bar: _Bar | None = None
        self._row: Any = None
        self._start = 0.0
        self._due: tuple[str, str] | None = None

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Start the clock and the bar; a run resumed in the middle of an epoch has no epoch start."""
        self._start = time.perf_counter()
        if self.console.is_terminal and trainer.is_global_zero:
            self._bar = _Bar(
                TextColumn("{task.description}"),
                BarColumn(bar_width=20),
                MofNCompleteColumn(),
                TimeRemainingColumn(),
                console=self.console,
            )
            self._row = self._bar.add_task("", total=None)
            self._bar.start()

    def on_train_epoch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Print the line of the epoch before, and start a new one."""
        self._print(pl_module)
        self._start = time.perf_counter()
        if self._bar is not None:
            total = trainer.num_training_batches
            self._bar.reset(
                self._row, total=None if total == float("inf") else total, description=_epoch(trainer)
            )

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Move the bar."""
        if self._bar is not None and isinstance(pl_module, System):
            self._bar.values = " ".join(summary(pl_module, "train", "step"))
            self._bar.update(self._row, completed=batch_idx + 1)

    def on_validation_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Show that validation has started."""
        if self._bar is not None:
            self._bar.update(self._row, description=f"{_epoch(trainer)} val")

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Note that the epoch's line is due; the module logs its values after callbacks ran."""
        if trainer.is_global_zero:
            seconds = time.perf_counter() - self._start
            self._due = f"{_epoch(trainer)}  step {trainer.global_step}", f"{seconds:.1f} s"

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Print the last line and stop the bar."""
        self._print(pl_module)
        self._stop()

    def on_exception(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, exception: BaseException
    ) -> None:
        """Print the last line and stop the bar."""
        self._print(pl_module)
        self._stop()

    def _print(self, module: pl.LightningModule) -> None:
        if self._due is None or not isinstance(module, System):
            return
        (start, end), self._due = self._due, None
        found = {stage: summary(module, stage, "epoch") for stage in ("train", "val")}
        parts = [f"{stage} " + " ".join(values) for stage, values in found.items() if values]
        # As they are: a task may be called [a], and the console be anybody's.
        self.console.print(Text("  ".join([start, *parts, end])), soft_wrap=True)

    def _stop(self) -> None:
        if self._bar is not None:
            self._bar.stop()
            self._bar = None


def _epoch(trainer: pl.Trainer) -> str:
    last = trainer.max_epochs if trainer.max_epochs is not None and trainer.max_epochs > 0 else None
    return f"epoch {trainer.current_epoch + 1}" + (f"/{last}" if last is not None else "")


def summary(system: System, stage: str, when: str) -> list[str]:
    """``loss/<task>=…`` and ``<task>/<Metric>=…`` for the main metrics that have a value.

    Args:
        system: The system that is trained.
        stage: ``train``, ``val`` or ``test``.
        when: ``step`` or ``epoch``.
    """
    found = []
    for name in (*system.names, "total"):
        key = f"{stage}/loss/{name}/{when}"
        if key in system.latest:
            found.append(f"loss/{name}={_shown(system.latest[key])}")
    for key in system.main_metrics(stage):
        value = system.latest.get(f"{stage}/{key}/{when}")
        if value is not None:
            found.append(f"{key}={_shown(value)}")
    return found


def _shown(value: float) -> str:
    return "–" if math.isnan(value) else f"{value:.4g}"
