"""What Lightning and warnings may write in a process that runs a command."""

import logging
import warnings

# It sets the level of its logger when it is imported, so this must come first.
import pytorch_lightning  # noqa: F401

# Lightning's advice on speed, and warnings about torch's own deprecations, which users cannot act on.
_NOISE = (
    "does not have many workers",
    r"isinstance\(treespec, LeafSpec\)",
    "is smaller than the logging interval",
    "Checkpoint directory .* exists and is not empty",
    "The dirpath has changed",
    "Your `IterableDataset` has `__len__` defined",
)


def quiet_libraries() -> None:
    """Show one line for each warning, and no advice of Lightning; for a process that only runs a command."""
    for name in ("pytorch_lightning", "lightning_fabric"):
        logging.getLogger(name).setLevel(logging.WARNING)
    for message in _NOISE:
        warnings.filterwarnings("ignore", message=f".*{message}.*")
    warnings.formatwarning = _one_line


def _one_line(
    message: Warning | str, category: type[Warning], filename: str, lineno: int, line: str | None = None
) -> str:
    return f"warning: {' '.join(str(message).split())}\n"
