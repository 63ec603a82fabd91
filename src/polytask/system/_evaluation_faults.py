"""Losses that are not finite in an evaluation, and what the best checkpoint is then."""

import math
import warnings
from collections.abc import Iterable, Mapping, Sequence

import pytorch_lightning as pl
from pytorch_lightning.callbacks import ModelCheckpoint

from polytask._lightning._training import forget_best

_STAGES = {"val": "validation", "test": "test"}


class EvaluationFaults:
    """Warns of losses that are not finite in an evaluation, and keeps an early epoch from being the best.

    Lightning takes the first value that is not a number for infinitely bad, and later ones for no better:
    without a number the best checkpoint would stay that of the first epoch. Until there is one, it is that
    of the last epoch.

    Args:
        names: The tasks.

    Example:
        >>> faults = EvaluationFaults(["digit"])
        >>> with warnings.catch_warnings(record=True) as caught:
        ...     warnings.simplefilter("always")
        ...     for epoch in range(3):
        ...         faults.say("val", {"val/loss/digit/epoch": math.nan}, epoch)
        >>> [str(one.message) for one in caught]
        ["task 'digit': the validation loss must be finite, got nan in epoch 0. Check the stage's data."]
    """

    def __init__(self, names: Sequence[str]) -> None:
        self._names = names
        self._said: set[tuple[str, ...]] = set()

    def say(self, stage: str, values: Mapping[str, float], epoch: int) -> None:
        """Warn of the losses that are not finite, once for each task and stage.

        Args:
            stage: ``val`` or ``test``.
            values: The stage's values by log key.
            epoch: The training epoch, from 0.

        Warns:
            UserWarning: With the task, the stage and the epoch.
        """
        for name in self._names:
            value = values.get(f"{stage}/loss/{name}/epoch", 0.0)
            if math.isfinite(value) or not self._is_new(stage, name):
                continue
            found = f"got {value}" + (f" in epoch {epoch}" if stage == "val" else "")
            rule = f"the {_STAGES[stage]} loss must be finite"
            warnings.warn(f"task '{name}': {rule}, {found}. Check the stage's data.", stacklevel=2)

    def prepare_checkpoints(
        self, callbacks: Iterable[pl.Callback], values: Mapping[str, float], trainer: pl.Trainer
    ) -> None:
        """Let a checkpoint whose monitor is not finite be of this epoch, if none had a finite one before.

        Args:
            callbacks: The trainer's callbacks, before they see the values.
            values: The values of a validation by log key.
            trainer: The trainer.

        Warns:
            UserWarning: Once for each monitor, with what its checkpoint is.
        """
        for callback in callbacks:
            monitor = callback.monitor if isinstance(callback, ModelCheckpoint) else None
            if monitor is None or math.isfinite(values.get(monitor, 0.0)):
                continue
            assert isinstance(callback, ModelCheckpoint)
            best = callback.best_model_score
            whole = best is not None and bool(best.isfinite())
            if not whole and callback.save_top_k == 1:
                forget_best(callback, trainer)
            if trainer.is_global_zero and self._is_new(monitor, str(whole)):
                found = f"got {values[monitor]} in epoch {trainer.current_epoch}"
                kept = "The best checkpoint stays that of an earlier epoch"
                if not whole:
                    kept = "Until it is finite, the best checkpoint is that of the last epoch"
                rule = "must be finite to select a checkpoint"
                warnings.warn(f"{monitor}: {rule}, {found}. {kept}.", stacklevel=2)

    def _is_new(self, *key: str) -> bool:
        if key in self._said:
            return False
        self._said.add(key)
        return True
