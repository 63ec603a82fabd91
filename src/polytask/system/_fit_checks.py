"""Monitors: keys that callbacks and schedulers watch."""

from collections.abc import Callable, Iterable, Sequence

from polytask._errors import UserError, hint


def monitor_problems(
    monitors: Iterable[tuple[str, str | None]], keys: Sequence[str], may_log: Callable[[str], bool]
) -> list[UserError]:
    """What is wrong with monitors, found before any data is touched.

    Args:
        monitors: Who monitors, and what, if anything.
        keys: Keys that will be logged, to name the nearest.
        may_log: Whether a key may be logged.

    Example:
        >>> keys = ["val/loss/total/epoch"]
        >>> (problem,) = monitor_problems([("EarlyStopping", "val/loss/epoch")], keys, keys.__contains__)
        >>> print(problem)
        EarlyStopping.monitor: is a key that will be logged, got 'val/loss/epoch'. Did you mean
        'val/loss/total/epoch'?
    """
    return [
        UserError(f"{where}.monitor", "is a key that will be logged", repr(monitor), hint(monitor, keys))
        for where, monitor in monitors
        if monitor is not None and not may_log(monitor)
    ]
