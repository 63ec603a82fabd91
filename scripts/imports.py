#!/usr/bin/env python3
"""Prints who imports whom in a package: modules at the top, circles, arrows upwards, and the rooms.

    python scripts/imports.py [FOLDER]

Every import counts, those inside functions and under ``TYPE_CHECKING`` too, and so does a module that is
imported by a string (``import_module("polytask.x")``). Importing ``a.b`` from outside ``a`` also counts for
``a/__init__.py``, which Python runs first. A room is a folder of the package, or a module at its top.
"""

import ast
import sys
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

Graph = dict[str, set[str]]

_BASE = ("_errors", "_checks", "_tasks", "batch")

# Every room with the rooms that it may import, from the bottom to the top. A test holds the code to it,
# and the page "Architecture" shows it.
MAY_IMPORT: dict[str, tuple[str, ...]] = {
    "_version": (),
    "_errors": (),
    "_files": (),
    "_lazy": (),
    "_checks": ("_errors",),
    "_tasks": ("_errors", "_checks"),
    "_distributed": ("_errors",),
    "_lightning": (),
    "_console": (),
    "batch": ("_errors", "_checks", "_tasks"),
    "_linalg": (),
    "weighting": (*_BASE, "_linalg"),
    "losses": (*_BASE, "_distributed", "weighting"),
    "models": _BASE,
    "gradients": (*_BASE, "_distributed", "weighting", "losses"),
    "optim": ("_errors", "_checks", "_tasks"),
    "adapters": (*_BASE, "losses"),
    "data": (*_BASE, "_lazy", "_lightning"),
    "metrics": (*_BASE, "_lightning", "adapters", "data"),
    "system": (
        *(*_BASE, "_lazy", "_distributed", "_lightning", "weighting", "losses", "gradients"),
        *("optim", "adapters", "data", "metrics"),
    ),
    "config": ("_errors", "_files", "_lazy", "_checks"),
    "runs": ("_errors", "_files", "_checks", "_lightning", "config"),
    "callbacks": (
        *(*_BASE, "_files", "_lightning", "_console", "losses", "models", "optim", "data", "system", "runs"),
    ),
    "diagnostics": (
        *("_errors", "_files", "_lazy", "_checks", "_tasks", "weighting", "losses", "gradients"),
        *("system", "runs"),
    ),
    "checkpoint": ("callbacks", "runs"),
    "predictions": ("runs",),
    "loggers": ("runs",),
    "arrays": (*_BASE, "_lightning", "adapters", "data", "system"),
    "experiment": (
        *("_errors", "_checks", "_distributed", "_lightning", "_console", "data", "system", "config"),
        *("runs", "callbacks", "diagnostics"),
    ),
    "trainer": ("_errors", "_console", "losses", "callbacks", "arrays"),
    "estimator": (*_BASE, "weighting", "losses", "models", "data", "system", "arrays"),
    "predictor": (*_BASE, "losses", "data", "system", "config", "runs", "arrays", "experiment"),
    "compare": (
        *("_errors", "_files", "_lazy", "_checks", "weighting", "metrics", "system", "config", "runs"),
        "experiment",
    ),
    "report": ("_version", "_errors", "_checks", "runs", "diagnostics", "compare"),
    "cli": (
        *("_version", "_errors", "_lazy", "_lightning", "_console", "weighting", "config", "runs"),
        *("diagnostics", "experiment", "compare", "report"),
    ),
    "__init__": (
        *("_version", "_errors", "_lazy", "losses", "optim", "system", "trainer", "estimator", "predictor"),
    ),
    "__main__": ("cli",),
}
ORDER = tuple(MAY_IMPORT)


def modules(folder: Path) -> dict[str, Path]:
    """Every module of a package by its dotted name.

    Args:
        folder: The package's folder.
    """
    found = {}
    for path in sorted(folder.rglob("*.py")):
        parts = (folder.name, *path.relative_to(folder).with_suffix("").parts)
        if "template" not in parts:
            found[".".join(parts).removesuffix(".__init__")] = path
    return found


def imported(path: Path, package: str) -> Iterator[str]:
    """The dotted names that a module imports, also those that may be attributes and not modules.

    Args:
        path: The module's file.
        package: The package that relative imports count from.
    """
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = package.split(".")[: len(package.split(".")) - node.level + 1] if node.level else []
            whole = ".".join([*base, *([node.module] if node.module else [])])
            for alias in node.names:
                yield f"{whole}.{alias.name}"
        elif isinstance(node, ast.Call) and ast.unparse(node.func).endswith("import_module") and node.args:
            name = node.args[0]
            if isinstance(name, ast.Constant) and isinstance(name.value, str):
                yield name.value


def graph(folder: Path) -> Graph:
    """Which modules of a package each of its modules imports.

    Args:
        folder: The package's folder.
    """
    known = modules(folder)
    found: Graph = {}
    for name, path in known.items():
        package = name if path.name == "__init__.py" else name.rpartition(".")[0]
        found[name] = set()
        for wanted in imported(path, package):
            module = wanted if wanted in known else wanted.rpartition(".")[0]
            while module in known:
                found[name].add(module)
                module = module.rpartition(".")[0]
                if not module or name.startswith(f"{module}.") or name == module:
                    break
        found[name].discard(name)
    return found


def room(module: str) -> str:
    """The room that a module is in: the first part of its name below the package.

    Args:
        module: A dotted name.
    """
    return module.split(".")[1] if "." in module else "__init__"


def rooms(arrows: Mapping[str, Iterable[str]]) -> Graph:
    """Which rooms each room imports.

    Args:
        arrows: Which modules each module imports.
    """
    found: Graph = {}
    for module, others in arrows.items():
        found.setdefault(room(module), set()).update(room(other) for other in others)
    return {name: others - {name} for name, others in found.items()}


def circles(arrows: Mapping[str, Iterable[str]]) -> list[list[str]]:
    """Groups of nodes that reach each other, the largest first.

    Args:
        arrows: Which nodes each node points to.
    """
    reached = {start: _reached(start, arrows) for start in arrows}
    found = {frozenset(b for b in reached[a] if a in reached.get(b, ())) for a in arrows}
    return sorted((sorted(group) for group in found if group), key=lambda group: (-len(group), group))


def _reached(start: str, arrows: Mapping[str, Iterable[str]]) -> set[str]:
    found: set[str] = set()
    ahead = list(arrows[start])
    while ahead:
        node = ahead.pop()
        if node not in found:
            found.add(node)
            ahead += arrows.get(node, ())
    return found


def upwards(between: Graph) -> list[tuple[str, str]]:
    """Arrows from a room to one that stands above it in `ORDER`.

    Args:
        between: Which rooms each room imports.
    """
    return [
        (name, other)
        for name, others in between.items()
        for other in sorted(others)
        if name in ORDER and other in ORDER and ORDER.index(other) > ORDER.index(name)
    ]


def page(folder: Path) -> str:
    """The table of the allowed imports, in Markdown, with the first sentence of each room's docstring.

    Args:
        folder: The package's folder.
    """
    lines = ["| room | what it is for | may import |", "|---|---|---|"]
    for name, others in reversed(MAY_IMPORT.items()):
        file = folder / name / "__init__.py"
        file = file if file.is_file() else folder / f"{name}.py"
        text = (ast.get_docstring(ast.parse(file.read_text())) or "").partition("\n")[0]
        rooms_below = ", ".join(f"`{other}`" for other in sorted(others)) or "–"
        lines.append(f"| `{name}` | {text.rstrip('.')} | {rooms_below} |")
    return "\n".join(lines) + "\n"


def main(folder: Path) -> None:
    """Print all of it for one package."""
    arrows = graph(folder)
    between = rooms(arrows)
    top = [path.name for path in sorted(folder.glob("*.py"))]
    print(f"modules at the top: {len(top)}\n  {' '.join(top)}")
    for title, found in (("circles of modules", circles(arrows)), ("circles of rooms", circles(between))):
        print(f"{title}: {len(found)}")
        for group in found:
            print(f"  {len(group)}: {' '.join(group)}")
    above = upwards(between)
    print(f"arrows upwards: {len(above)}")
    for name, other in above:
        print(f"  {name} -> {other}")
    unknown = sorted(name for name in between if name not in ORDER)
    print(f"rooms that the order lacks: {len(unknown)}\n  {' '.join(unknown)}")
    print("rooms:")
    for name in sorted(between, key=lambda name: ORDER.index(name) if name in ORDER else len(ORDER)):
        print(f"  {name} -> {' '.join(sorted(between[name])) or '-'}")


if __name__ == "__main__":
    main(Path(sys.argv[1] if len(sys.argv) > 1 else "src/polytask"))
