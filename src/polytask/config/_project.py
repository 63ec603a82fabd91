"""Imports a project's modules in preference to installed packages of the same name."""

import importlib.abc
import importlib.machinery
import os
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from types import ModuleType

VARIABLE = "POLYTASK_PROJECT"


class ProjectFinder(importlib.abc.MetaPathFinder):
    """Finds top-level modules in one folder; a folder of Python files needs no ``__init__.py``.

    Args:
        folder: The project's folder.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.served: set[str] = set()

    def find_spec(
        self, fullname: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> importlib.machinery.ModuleSpec | None:
        """The module's spec if it is a top-level name in the folder."""
        if path is not None or not holds(self.folder, fullname):
            return None
        self.served.add(fullname)
        package = self.folder / fullname
        if not _is_module(self.folder, fullname) and not (package / "__init__.py").is_file():
            # A namespace spec from PathFinder would look for its parts along sys.path again.
            spec = importlib.machinery.ModuleSpec(fullname, None, is_package=True)
            spec.submodule_search_locations = [str(package)]
            return spec
        return importlib.machinery.PathFinder.find_spec(fullname, [str(self.folder)])


def _is_module(folder: Path, name: str) -> bool:
    return (folder / f"{name}.py").is_file() and not (folder / name / "__init__.py").is_file()


def holds(folder: Path, name: str) -> bool:
    """Whether the folder has a module or a package of this name.

    A folder without Python files, such as one that a logger writes, is not a package: it would hide the
    installed package of that name. Modules of Python's library are never hidden.
    """
    if name in sys.stdlib_module_names or not name.isidentifier():
        return False
    package = folder / name
    if (folder / f"{name}.py").is_file():
        return True
    if not package.is_dir():
        return False
    return any(package.glob("*.py")) or any(package.glob("*/*.py"))


def install(folder: Path) -> None:
    """Make the project's modules importable, here and in worker processes.

    Modules of an earlier project are removed from ``sys.modules``. The folder is also appended to
    ``sys.path``, for workers that are spawned from a process with another main module than the command.
    """
    for finder in [finder for finder in sys.meta_path if isinstance(finder, ProjectFinder)]:
        if finder.folder == folder:
            return
        sys.meta_path.remove(finder)
        forget(name for name in finder.served if is_from(finder.folder, name))
        sys.path[:] = [entry for entry in sys.path if entry != str(finder.folder)]
    sys.meta_path.insert(0, ProjectFinder(folder))
    sys.path.append(str(folder))
    os.environ[VARIABLE] = str(folder)
    importlib.invalidate_caches()


def follow_parent() -> None:
    """In a worker process, make the parent's project importable.

    A spawned worker imports the command's main module before it unpickles its arguments; that module
    calls this function. In any other process it does nothing.

    Example:
        >>> follow_parent()
    """
    if "__mp_main__" in sys.modules and (folder := os.environ.get(VARIABLE)):
        install(Path(folder))


def forget(names: Iterable[str]) -> None:
    """Remove top-level modules and their submodules from ``sys.modules``."""
    roots = set(names)
    for name in [name for name in sys.modules if name.partition(".")[0] in roots]:
        del sys.modules[name]


def is_from(folder: Path, name: str) -> bool:
    """Whether the imported module ``name`` is a file of the project's folder."""
    module = sys.modules.get(name)
    if module is None:
        return False
    expected = folder.joinpath(*name.split("."))
    file = getattr(module, "__file__", None)
    if file is None:
        return str(expected) in list(getattr(module, "__path__", ()))
    return Path(file) in (expected.with_suffix(".py"), expected / "__init__.py")
