"""The errors for losses and weights that are not finite."""

import pytorch_lightning as pl
from pytorch_lightning.callbacks import ModelCheckpoint
from torch import nn

from polytask._errors import RunError


def nonfinite(name: str, value: float, step: int, trainer: pl.Trainer) -> RunError:
    """The error for a loss that is not finite, with the last good checkpoint.

    Args:
        name: The task, or ``total``.
        value: Its loss.
        step: The first step with such a loss.
        trainer: The trainer, which knows the epoch and the checkpoints.

    Example:
        >>> trainer = pl.Trainer(accelerator="cpu", logger=False, enable_checkpointing=False)
        >>> nonfinite("digit", float("nan"), 3, trainer).found
        'nan at step 3 in epoch 0'
    """
    paths = [
        path
        for callback in trainer.checkpoint_callbacks
        if isinstance(callback, ModelCheckpoint)
        for path in (callback.last_model_path, callback.best_model_path)
        if path
    ]
    good = f"The last good checkpoint is {paths[0]}" if paths else "No checkpoint was saved before it"
    return RunError(
        "total loss" if name == "total" else f"task '{name}'",
        "the loss must be finite",
        f"{value} at step {step} in epoch {trainer.current_epoch}",
        f"{good}. Lower the learning rate, check the data, or set on_nonfinite: skip",
    )


def check_weights(module: nn.Module, step: int) -> None:
    """Check that all parameters are finite, which a finite loss does not imply.

    Args:
        module: The module that is about to be saved.
        step: The optimizer step, for the message.

    Raises:
        RunError: If a parameter is not finite, with its name.

    Example:
        >>> check_weights(nn.Linear(2, 1), 3)
    """
    for name, parameter in module.named_parameters():
        if not bool(parameter.isfinite().all()):
            raise RunError(
                f"weight '{name}'",
                "must be finite to be saved",
                f"NaN or infinity at step {step}",
                "Clip the gradients (trainer.gradient_clip_val), or lower the learning rate",
            )
