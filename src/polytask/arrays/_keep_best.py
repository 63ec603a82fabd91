"""Stops a training when its validation no longer improves, and keeps the weights of the best epoch."""

import math
from typing import Any

import pytorch_lightning as pl
import torch

from polytask.system import System


class KeepBest(pl.Callback):
    """Keeps the weights of the epoch with the least sum of the tasks' validation losses, in memory.

    The sum is of the unweighted losses: a total with a weighting is not comparable between epochs.

    Args:
        patience: Epochs without a smaller sum after which training stops.

    Attributes:
        epoch: The best epoch, from 0; None before the first.

    Example:
        >>> KeepBest(3).epoch is None
        True
    """

    def __init__(self, patience: int) -> None:
        self.patience = patience
        self.epoch: int | None = None
        self._least = math.inf
        self._state: dict[str, Any] = {}

    def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Compare, keep and perhaps stop."""
        assert isinstance(pl_module, System)
        losses = [pl_module.latest.get(f"val/loss/{name}/epoch", 0.0) for name in pl_module.names]
        if sum(losses) < self._least:
            self._least, self.epoch = sum(losses), trainer.current_epoch
            self._state = {name: value.detach().clone() for name, value in _tensors(pl_module).items()}
        elif self.epoch is not None and trainer.current_epoch - self.epoch >= self.patience:
            trainer.should_stop = True

    def load_best(self, system: System) -> None:
        """Load the weights of the best epoch into the model.

        Args:
            system: The system that was trained.
        """
        with torch.no_grad():
            for name, value in _tensors(system).items():
                if name in self._state:
                    value.copy_(self._state[name])


def _tensors(system: System) -> dict[str, torch.Tensor]:
    state = system.model.state_dict()
    return {name: value for name, value in state.items() if isinstance(value, torch.Tensor)}
