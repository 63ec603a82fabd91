"""Lightning without its advertisements, for people who did not ask for Lightning."""

import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager

# Its advice, and what it does with torch's own deprecations, are not the user's to mend.
_NOISE = (
    "does not have many workers",
    "sampler has shuffling enabled",
    r"isinstance\(treespec, LeafSpec\)",
)
_LOGGERS = ("pytorch_lightning", "lightning_fabric")


# A Trainer that shows and keeps nothing by itself.
SILENT = {
    "logger": False,
    "enable_checkpointing": False,
    "enable_progress_bar": False,
    "enable_model_summary": False,
}


@contextmanager
def quiet_lightning() -> Iterator[None]:
    """Let Lightning say nothing below a warning, and then only what the user can mend.

    Example:
        >>> with quiet_lightning():
        ...     logging.getLogger("pytorch_lightning").isEnabledFor(logging.INFO)
        False
    """
    loggers = [logging.getLogger(name) for name in _LOGGERS]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.WARNING)
    try:
        with warnings.catch_warnings():
            for message in _NOISE:
                warnings.filterwarnings("ignore", message=f".*{message}.*")
            yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)
