"""What Lightning and warnings may write in a process that runs a command."""

import warnings

# It sets the level of its logger when it is imported, so this must come first.
import pytorch_lightning  # noqa: F401

from polytask._lightning._noise import Silence, quieten_loggers, silence


def quiet_libraries() -> None:
    """Show one line for each warning, and no advice of Lightning; for a process that only runs a command."""
    quieten_loggers()
    silence(Silence.COMMAND)
    warnings.formatwarning = _one_line


def _one_line(
    message: Warning | str, category: type[Warning], filename: str, lineno: int, line: str | None = None
) -> str:
    return f"warning: {' '.join(str(message).split())}\n"
