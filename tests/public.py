"""What is public: the modules that the reference lists, and the names that they export."""

import inspect
import re
from pathlib import Path
from typing import Any

REFERENCE = Path(__file__).parents[1] / "docs" / "reference" / "index.md"


def public_modules() -> list[str]:
    return re.findall(r"^   (polytask[\w.]*)$", REFERENCE.read_text(), re.MULTILINE)


def public_names(module: Any) -> list[str]:
    """The classes and functions that a module exports, or, where it does not say, defines."""
    exported = getattr(module, "__all__", None)
    if exported is not None:
        return [name for name in exported if name != "__version__"]
    return [
        name
        for name, value in vars(module).items()
        if not name.startswith("_")
        and (inspect.isclass(value) or inspect.isfunction(value))
        and value.__module__ == module.__name__
    ]
