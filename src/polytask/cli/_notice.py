"""What a terminal shows while a command imports its libraries."""

import contextlib
import os
import sys

_TRAINING = "importing torch and Lightning"
_IMPORTS = {
    "fit": _TRAINING,
    "validate": _TRAINING,
    "test": _TRAINING,
    "predict": _TRAINING,
    "check": _TRAINING,
    "compare": _TRAINING,
    "tune": _TRAINING,
    "methods": "importing torch",
    "report": "reading records",
    "group": "reading records",
}
# Every process of a training runs the command; which is the first is known only after the imports.
_RANKS = (
    "RANK",
    "LOCAL_RANK",
    "NODE_RANK",
    "SLURM_PROCID",
    "JSM_NAMESPACE_RANK",
    "OMPI_COMM_WORLD_RANK",
    "PMI_RANK",
)


def notice(command: str, quiet: bool) -> None:
    """Say on a terminal what takes the first seconds; pipes and files stay clean.

    Args:
        command: The command.
        quiet: Whether nothing is to be said.
    """
    is_repeated = any(os.environ.get(name, "0") != "0" for name in _RANKS)
    # A process without standard error has None there.
    is_terminal = sys.stderr is not None and sys.stderr.isatty()
    if command in _IMPORTS and not quiet and not is_repeated and is_terminal:
        with contextlib.suppress(OSError):
            print(f"polytask {command}: {_IMPORTS[command]} …", file=sys.stderr, flush=True)
