"""What tests may touch: private modules and names of a room only in that room's own unit tests."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

import polytask

TESTS = Path(__file__).parents[1]
FILES = sorted(TESTS.rglob("*.py"))
SOURCE = Path(polytask.__file__).parent
# Private attributes of torch's objects that are called like one of polytask's.
OF_TORCH = {"_schema"}
# The tests of a launcher that needs an extra, and the fixture that undoes what a config does to its process.
ELSEWHERE = {"ray": "compare", "conftest.py": "config"}


def is_private(name: str) -> bool:
    return name.startswith("_") and not name.startswith("__")


def private_room(dotted: str) -> str | None:
    """The room of a private name of polytask; None for a public name and for those of others."""
    package, *parts = dotted.split(".")
    return parts[0] if package == "polytask" and any(map(is_private, parts)) else None


def home(path: Path) -> str | None:
    """The room that a unit test is of: its folder's, or its own for a room that is one module."""
    kind, *parts = path.relative_to(TESTS).parts
    return (
        parts[0].removeprefix("test_").removesuffix(".py").strip("_")
        if kind == "unit"
        else ELSEWHERE.get(kind)
    )


def imported(tree: ast.Module) -> Iterator[tuple[str, str, int]]:
    """The names that imports bind, what each of them is, and the line."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                dotted = alias.name if alias.asname else alias.name.split(".")[0]
                yield alias.asname or dotted, dotted, node.lineno
        elif isinstance(node, ast.ImportFrom) and node.module:
            for alias in node.names:
                yield alias.asname or alias.name, f"{node.module}.{alias.name}", node.lineno


def dotted_name(node: ast.expr, bound: dict[str, str]) -> str | None:
    """The full name that an expression stands for, if it begins with an imported one."""
    if isinstance(node, ast.Name):
        return bound.get(node.id)
    if isinstance(node, ast.Attribute):
        before = dotted_name(node.value, bound)
        return before and f"{before}.{node.attr}"
    return None


def touched(tree: ast.Module) -> Iterator[tuple[str, int]]:
    """Full names that a test imports, reads from what it imports, or replaces, with their lines."""
    imports = list(imported(tree))
    bound = {name: dotted for name, dotted, _ in imports}
    yield from ((dotted, line) for _, dotted, line in imports)
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute) and (dotted := dotted_name(node, bound)):
            yield dotted, node.lineno
        elif isinstance(node, ast.Call) and ast.unparse(node.func).endswith(".setattr"):
            target, *rest = node.args
            name = rest[0].value if rest and isinstance(rest[0], ast.Constant) else ""
            if isinstance(target, ast.Constant):
                yield str(target.value), node.lineno
            elif dotted := dotted_name(target, bound):
                yield f"{dotted}.{name}", node.lineno


def own_names(tree: ast.Module) -> set[str]:
    """Private attributes that classes of a file set or define themselves, and private functions."""
    names = {node.name for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)}
    names |= {name for _, name, _ in attributes(tree, own=True)}
    return {name for name in names if is_private(name)}


def attributes(tree: ast.Module, own: bool = False) -> Iterator[tuple[str, str, int]]:
    """Private attributes of objects, or those of ``self`` and ``cls``: the expression, the name, the line."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute) and is_private(node.attr):
            of_self = isinstance(node.value, ast.Name) and node.value.id in ("self", "cls")
            if of_self == own:
                yield ast.unparse(node), node.attr, node.lineno


def rooms_by_attribute() -> dict[str, set[str]]:
    """The rooms that have a private attribute or method, by its name."""
    found: dict[str, set[str]] = {}
    for path in SOURCE.rglob("*.py"):
        room = path.relative_to(SOURCE).parts[0].removesuffix(".py").strip("_")
        for name in own_names(ast.parse(path.read_text())):
            found.setdefault(name, set()).add(room)
    return found


ROOMS = rooms_by_attribute()


def private_attributes(code: str, room: str | None) -> set[str]:
    """Private attributes of another room's objects, where only that room has attributes of this name."""
    tree = ast.parse(code)
    own = own_names(tree) | OF_TORCH
    return {
        f"{line} {text}"
        for text, name, line in attributes(tree)
        if name not in own and name in ROOMS and room not in ROOMS[name]
    }


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(TESTS)))
def test_private_names_are_those_of_the_room_that_is_tested(path: Path) -> None:
    found = {
        f"{path.relative_to(TESTS)}:{line} {name}"
        for name, line in touched(ast.parse(path.read_text()))
        if (room := private_room(name)) is not None and room.strip("_") != home(path)
    }
    assert sorted(found) == []


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(TESTS)))
def test_private_attributes_are_those_of_the_room_that_is_tested(path: Path) -> None:
    assert private_attributes(path.read_text(), home(path)) == set()


def test_the_rule_sees_attributes_of_objects() -> None:
    code = "engine._level.layers\nfunction._schema\nclass A:\n def _own(self): pass\nA()._own"
    assert private_attributes(code, "system") == {"1 engine._level"}
    assert private_attributes(code, "gradients") == set()


def test_the_rule_sees_what_it_forbids() -> None:
    code = """
import polytask.data._inside
from polytask.data import _inside, _inside as module, Public
from polytask import config, __version__

config._private
config.public
monkeypatch.setattr(config, "_replaced", 1)
monkeypatch.setattr("polytask.runs._folders.now", 1)
monkeypatch.setattr(Public, "_method", 1)
"""
    names = {name for name, _ in touched(ast.parse(code)) if private_room(name)}
    assert names == {
        "polytask.data._inside",
        "polytask.config._private",
        "polytask.config._replaced",
        "polytask.runs._folders.now",
        "polytask.data.Public._method",
    }
    assert private_room("polytask.config._private") == "config"
    assert private_room("polytask.__version__") is None
