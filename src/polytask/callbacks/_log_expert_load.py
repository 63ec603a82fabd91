"""Logs the load of each expert."""

from functools import partial

from pytorch_lightning import Callback, LightningModule, Trainer

from polytask.models import ExpertLoad


class LogExpertLoad(Callback):
    """Logs at the end of each training epoch the mean gate weight of each expert for each task.

    The keys are ``experts/<task>/<expert>``; the values sum to one for each task and level, see
    `polytask.models.ExpertLoad`. On several devices they are means over the samples of all devices.

    Example:
        >>> LogExpertLoad().load is None
        True
    """

    def __init__(self) -> None:
        self.load: ExpertLoad | None = None

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Observe the model's gates."""
        self.load = ExpertLoad(pl_module)

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Log the epoch's mean weights, and reset them."""
        assert self.load is not None
        # Tasks may be absent on one rank and present on another: the keys are those of all.
        shares = self.load.shares(partial(trainer.strategy.reduce, reduce_op="sum"))
        values = {
            f"experts/{task}/{name}": share
            for task, by_expert in shares.items()
            for name, share in by_expert.items()
        }
        pl_module.log_dict(values, sync_dist=trainer.world_size > 1)
        self.load.reset()

    def teardown(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Stop observing."""
        if self.load is not None:
            self.load.close()
            self.load = None
