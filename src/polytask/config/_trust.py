"""Which code a config may name: the packages that it may import, the folders that may be its project."""

from importlib.machinery import PathFinder
from pathlib import Path

ROOTS = (
    "polytask",
    "torch",
    "pytorch_lightning",
    "lightning_fabric",
    "torchmetrics",
    "torchjd",
    "torchvision",
    "timm",
    "transformers",
)
"""Packages that a config may import: an import runs code, so others need ``--allow``."""


def is_installed(folder: Path) -> bool:
    """Whether a folder is in Python's library, in installed packages, or in a package of `ROOTS`.

    A config must not name such code as its project, since all code of a project is trusted. A checkout that
    is installed in place is not such a folder.

    Args:
        folder: A resolved folder.
    """
    packages = _packages()
    return any(parent in packages or _is_library(parent) for parent in (folder, *folder.parents))


def _is_library(folder: Path) -> bool:
    if folder.name in ("site-packages", "dist-packages"):
        return True
    if all((folder / name).is_file() for name in ("os.py", "site.py")):
        return True
    # A file that is written when a package is installed, and not when it is built or linked.
    return any(folder.glob("*.dist-info/RECORD"))


def _packages() -> set[Path]:
    specs = (PathFinder.find_spec(root) for root in ROOTS)
    return {Path(spec.origin).resolve().parent for spec in specs if spec is not None and spec.origin}


def is_package(root: str) -> bool:
    """Whether an installed package has this name; nothing is imported.

    Args:
        root: A name without a dot.

    Example:
        >>> is_package("numpy"), is_package("numbpy")
        (True, False)
    """
    spec = PathFinder.find_spec(root)
    if spec is None:
        return False
    places = [spec.origin] if spec.origin else list(spec.submodule_search_locations or ())
    return any(is_installed(Path(place).resolve().parent) for place in places)
