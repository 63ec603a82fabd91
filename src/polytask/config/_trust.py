"""Which code a config may reach by name: the packages it may import, the folders it may call its project."""

from importlib.machinery import PathFinder
from pathlib import Path

ROOTS = (
    "polytask",
    "torch",
    "pytorch_lightning",
    "torchmetrics",
    "torchjd",
    "torchvision",
    "timm",
    "transformers",
)
"""Packages that a config may import; importing anything else is an effect of its own."""


def is_installed(folder: Path) -> bool:
    """Whether a folder is, or lies in, Python's library, installed packages, or a package of `ROOTS`.

    A config must not be able to name such code as its own: all that a project defines is trusted.
    A checkout that is installed in place is no such folder.

    Args:
        folder: A resolved folder.
    """
    packages = _packages()
    return any(place in packages or _is_library(place) for place in (folder, *folder.parents))


def _is_library(place: Path) -> bool:
    if place.name in ("site-packages", "dist-packages"):
        return True
    if all((place / name).is_file() for name in ("os.py", "site.py")):
        return True
    # Written where a package is installed into a folder, and not where it is built or linked from.
    return any(place.glob("*.dist-info/RECORD"))


def _packages() -> set[Path]:
    specs = (PathFinder.find_spec(root) for root in ROOTS)
    return {Path(spec.origin).resolve().parent for spec in specs if spec is not None and spec.origin}
