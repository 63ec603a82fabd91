"""Which of a training's processes this one is."""

import os


def is_first_process() -> bool:
    """Whether this process trains on the host's first device: it alone writes the run's files and reports.

    Example:
        >>> is_first_process()
        True
    """
    return os.environ.get("LOCAL_RANK", "0") == "0"
