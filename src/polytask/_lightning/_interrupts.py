"""Ctrl-C as `KeyboardInterrupt`."""

from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def interrupts() -> Iterator[None]:
    """Raise `KeyboardInterrupt` if Lightning ends the process on Ctrl-C, which would end a notebook too.

    Example:
        >>> try:
        ...     with interrupts():
        ...         try:
        ...             raise KeyboardInterrupt
        ...         except KeyboardInterrupt:
        ...             raise SystemExit(1)
        ... except KeyboardInterrupt:
        ...     print("interrupted")
        interrupted
    """
    try:
        yield
    except SystemExit as stop:
        if not isinstance(stop.__context__, KeyboardInterrupt):
            raise
        raise KeyboardInterrupt from stop
