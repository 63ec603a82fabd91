"""Imports of large packages: when a name is first used, and without garbage collections."""

import gc
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from importlib import import_module
from typing import Any


@contextmanager
def uncollected() -> Iterator[None]:
    """Pause the garbage collector, which otherwise traverses everything again and again during large imports.

    Importing Lightning then takes a fifth less CPU time. Almost nothing that an import creates is garbage;
    the rest is collected later. A collector that is off already stays off.

    Example:
        >>> with uncollected():
        ...     gc.isenabled()
        False
        >>> gc.isenabled()
        True
    """
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_enabled:
            gc.enable()


def preload(package: str) -> None:
    """Import a large package that a command needs, and exempt it from garbage collection.

    A command's process never unloads it. Without this the collector traverses it again during the imports
    that follow and when the process exits, which takes about as long as importing torch.

    Args:
        package: The package; nothing happens if it is already imported.
    """
    if package not in sys.modules:
        with uncollected():
            import_module(package)
        gc.freeze()


def lazy(package: str, where: Mapping[str, str]) -> Callable[[str], Any]:
    """A package's ``__getattr__``, which imports a public name when it is first used.

    Args:
        package: The package's ``__name__``.
        where: The submodule of each public name.

    Example:
        >>> lazy("polytask", {"load": "predictor"})("lod")
        Traceback (most recent call last):
        AttributeError: module 'polytask' has no attribute 'lod'
    """

    def find(name: str) -> Any:
        if name not in where:
            raise AttributeError(f"module '{package}' has no attribute '{name}'")
        with uncollected():
            module = import_module(f"{package}.{where[name]}")
        return getattr(module, name)

    return find
