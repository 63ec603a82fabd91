"""The warnings of Lightning, torchmetrics and torch that are silenced, and when."""

import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from enum import Flag, auto


class Silence(Flag):
    """When a message is silenced.

    Attributes:
        SYSTEM: During each fit of a `polytask.System`, also with a user's own Trainer.
        ARRAYS: During the calls of the trainer and the estimator on arrays.
        COMMAND: In the command line's process.
        PREDICTIONS: While predictions are written.
        FEW_ROWS: While metrics are computed on a few rows, or on rows whose classes are named as undefined;
            all that is no deprecation.
        EPOCH_METRICS: While metrics are computed on an epoch by several processes.
        READ_ONLY: While a tensor is made of an array that it shares its memory with.
        CHECKPOINT: While a checkpoint is read.
        SCHEDULE: While a new scheduler is moved to the step of a resumed run; everything.
    """

    SYSTEM = auto()
    ARRAYS = auto()
    COMMAND = auto()
    PREDICTIONS = auto()
    FEW_ROWS = auto()
    EPOCH_METRICS = auto()
    READ_ONLY = auto()
    CHECKPOINT = auto()
    SCHEDULE = auto()


# Beginnings of messages, as regular expressions: what polytask causes on purpose, or users cannot change.
_MESSAGES = {
    # A batch without a label makes no step.
    ".*`training_step` returned `None`.*": Silence.SYSTEM,
    # A run may have no validation data.
    "Total length of `list` across ranks is zero.*": Silence.SYSTEM,
    # Advice on speed.
    ".*does not have many workers.*": Silence.ARRAYS | Silence.COMMAND,
    # Lightning calls what torch deprecates.
    r".*isinstance\(treespec, LeafSpec\).*": Silence.ARRAYS | Silence.COMMAND,
    # Arrays may be validated in any order.
    ".*sampler has shuffling enabled.*": Silence.ARRAYS,
    # The values of an epoch are logged in any case.
    ".*is smaller than the logging interval.*": Silence.COMMAND,
    # A resumed run continues to write into its folder.
    ".*Checkpoint directory .* exists and is not empty.*": Silence.COMMAND,
    ".*The dirpath has changed.*": Silence.COMMAND,
    # The length of a streamed data set is known and correct.
    ".*Your `IterableDataset` has `__len__` defined.*": Silence.COMMAND,
    # Of loaders that are not torch's; indices of the data set are not written.
    "Couldn't infer the batch indices.*": Silence.PREDICTIONS,
    # A process may have no row of a task that others have.
    ".*was called before the ``update`` method.*": Silence.EPOCH_METRICS,
    # The tensor is never written to.
    ".*not writable.*": Silence.READ_ONLY,
    # Files of earlier versions of torch are read.
    "Detected pickle protocol": Silence.CHECKPOINT,
}
_CATEGORIES: dict[Silence, type[Warning]] = {
    # A few steps may lack a class, which says nothing about the run.
    Silence.FEW_ROWS: UserWarning,
    # No step of the optimizer precedes the scheduler's steps.
    Silence.SCHEDULE: Warning,
}
_LOGGERS = ("pytorch_lightning", "lightning_fabric")


# A Trainer that shows nothing and keeps nothing.
SILENT = {
    "logger": False,
    "enable_checkpointing": False,
    "enable_progress_bar": False,
    "enable_model_summary": False,
}


def silence(when: Silence) -> None:
    """Silence messages from now on, in this process or in the `warnings.catch_warnings` around the call.

    Args:
        when: Which messages.

    Example:
        >>> with warnings.catch_warnings(record=True) as shown:
        ...     silence(Silence.PREDICTIONS)
        ...     warnings.warn("Couldn't infer the batch indices fetched from your dataloader")
        >>> shown
        []
    """
    for message, when_silenced in _MESSAGES.items():
        if when & when_silenced:
            warnings.filterwarnings("ignore", message=message)
    for when_silenced, category in _CATEGORIES.items():
        if when & when_silenced:
            warnings.simplefilter("ignore", category)


@contextmanager
def silenced(when: Silence) -> Iterator[None]:
    """A context in which messages are silenced.

    Args:
        when: Which messages.

    Example:
        >>> with silenced(Silence.READ_ONLY):
        ...     warnings.warn("The given NumPy array is not writable")
    """
    with warnings.catch_warnings():
        silence(when)
        yield


def quieten_loggers() -> None:
    """Make Lightning log nothing below a warning."""
    for name in _LOGGERS:
        logging.getLogger(name).setLevel(logging.WARNING)


@contextmanager
def quiet_lightning() -> Iterator[None]:
    """Make Lightning log nothing below a warning, and warn only of what users can change.

    Example:
        >>> with quiet_lightning():
        ...     logging.getLogger("pytorch_lightning").isEnabledFor(logging.INFO)
        False
    """
    loggers = [logging.getLogger(name) for name in _LOGGERS]
    levels = [logger.level for logger in loggers]
    quieten_loggers()
    try:
        with silenced(Silence.ARRAYS):
            yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)
