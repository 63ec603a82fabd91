"""Checkpoints that carry the config, and that are overwritten in place."""

from collections.abc import Mapping
from typing import Any

import pytorch_lightning as pl
from pytorch_lightning.callbacks import ModelCheckpoint

from polytask.runs._checkpoints import CONFIG


class ConfigInCheckpoint(pl.Callback):
    """Puts the resolved config into every checkpoint, as plain data.

    Args:
        config: The resolved config.

    Example:
        >>> checkpoint = {}
        >>> ConfigInCheckpoint({"seed": 0}).on_save_checkpoint(None, None, checkpoint)
        >>> checkpoint
        {'polytask_config': {'seed': 0}}
    """

    def __init__(self, config: Mapping[str, Any]) -> None:
        self.config = dict(config)

    def on_save_checkpoint(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        """Add the config."""
        checkpoint[CONFIG] = self.config


class KeptCheckpoint(ModelCheckpoint):
    """A `ModelCheckpoint` that is overwritten in place, and whose state has a unique key.

    Its folder, ``dirpath``, is set before the fit.

    Args:
        name: The file's name, without ``.ckpt``.
        monitor: The log key of the best checkpoint; None saves at the end of every epoch.
        mode: ``min`` or ``max``.

    Example:
        >>> KeptCheckpoint("last").state_key
        'KeptCheckpoint-last'
    """

    def __init__(self, name: str, monitor: str | None = None, mode: str = "min") -> None:
        super().__init__(
            filename=name,
            monitor=monitor,
            mode=mode,
            save_on_train_epoch_end=True if monitor is None else None,
            enable_version_counter=False,
        )

    @property
    def state_key(self) -> str:
        """The key of the state: Lightning's is made of options that a user's callback may share."""
        return f"{type(self).__name__}-{self.filename}"
