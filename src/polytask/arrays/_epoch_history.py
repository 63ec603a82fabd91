"""The values of each epoch, over several calls of a trainer."""

import math
from typing import Any

import pytorch_lightning as pl

from polytask._errors import UserError
from polytask.system import System

LoggedValues = dict[str, float]


class EpochHistory(pl.Callback):
    """Keeps the values that a `polytask.System` logs in each training epoch.

    A `System` logs an epoch's values after callbacks ran, so an epoch is added when the next one starts
    or the training ends.

    Attributes:
        epochs: The values of each epoch by log key; ``weights/<task>`` are those of the epoch's last step.

    Example:
        >>> EpochHistory().epochs
        []
    """

    def __init__(self) -> None:
        self.epochs: list[LoggedValues] = []
        self._ended = False

    def on_train_epoch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Add the epoch before, and forget its values."""
        assert isinstance(pl_module, System)
        self._add(pl_module)
        pl_module.latest = {}

    def on_before_optimizer_step(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, optimizer: Any
    ) -> None:
        """Keep the weights of the epoch's last step, before the step changes them."""
        assert isinstance(pl_module, System)
        if pl_module.task_backward is not None and trainer.is_last_batch:
            pl_module.task_backward.keep_weights()

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Note that the epoch has ended.

        Raises:
            UserError: If the epoch had no batch, as the second one over an iterator has none.
        """
        if not trainer.fit_loop.epoch_loop.batch_progress.current.ready:
            raise UserError(
                "train loader",
                "must yield batches in every epoch",
                f"none in epoch {trainer.current_epoch + 1}",
                "Pass a loader, not an iterator over it",
            )
        self._ended = True

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Add the last epoch."""
        assert isinstance(pl_module, System)
        self._add(pl_module)

    def on_exception(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, exception: BaseException
    ) -> None:
        """Leave out the epoch in which the training failed."""
        self._ended = False

    def _add(self, system: System) -> None:
        if self._ended:
            self._ended = False
            weights = {} if system.task_backward is None else system.task_backward.weights
            values = {f"weights/{name}": weight for name, weight in weights.items()}
            self.epochs.append({**system.latest, **values})

    def by_key(self, first: int = 0) -> dict[str, list[float]]:
        """By log key a list with a value for each epoch, NaN for an epoch without one.

        Args:
            first: The first epoch, from 0.
        """
        epochs = self.epochs[first:]
        keys = dict.fromkeys(key for epoch in epochs for key in epoch)
        return {key: [epoch.get(key, math.nan) for epoch in epochs] for key in keys}
