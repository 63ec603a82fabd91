"""Docstrings of public objects have the sections that apply: Args, Raises and Example."""

import ast
import dataclasses
import inspect
import re
import textwrap
from collections.abc import Callable, Iterator
from importlib import import_module
from typing import Any

import pytest

from tests.public import public_modules, public_names

OBJECTS = {
    f"{name}.{public}": getattr(import_module(name), public)
    for name in public_modules()
    for public in public_names(import_module(name))
}
CLASSES = {name: value for name, value in OBJECTS.items() if inspect.isclass(value)}
FUNCTIONS = {name: value for name, value in OBJECTS.items() if inspect.isfunction(value)}


def sections(value: object) -> set[str]:
    return set(re.findall(r"^(\w+):$", inspect.getdoc(value) or "", re.MULTILINE))


def arguments(function: Callable[..., Any]) -> list[str]:
    return [name for name in inspect.signature(function).parameters if name not in ("self", "cls")]


def raises(function: Callable[..., Any]) -> bool:
    """Whether it raises an error that it makes itself, and not one of a helper or of a method to override."""
    tree = ast.parse(textwrap.dedent(inspect.getsource(function)))
    made = [node.exc for node in ast.walk(tree) if isinstance(node, ast.Raise) and node.exc is not None]
    return any("NotImplementedError" not in ast.unparse(error) for error in made)


def missing(function: Callable[..., Any], documented: set[str], *, inherited: bool = False) -> set[str]:
    """The sections that a function's docstring lacks; an override has the arguments of what it overrides."""
    wanted = {"Args"} if arguments(function) and not inherited else set()
    return (wanted | ({"Raises"} if raises(function) else set())) - documented


def methods(kind: type) -> Iterator[tuple[str, Callable[..., Any], bool]]:
    """Public methods and properties that a class defines, and whether they override another."""
    for name, value in vars(kind).items():
        function = value.fget if isinstance(value, property) else getattr(value, "__func__", value)
        if not name.startswith("_") and inspect.isfunction(function) and function.__doc__ is not None:
            yield name, function, any(name in vars(base) for base in kind.__mro__[1:])


def needs_example(value: Any) -> bool:
    """Not the records that functions return, which have attributes only, and not what is raised."""
    if not inspect.isclass(value):
        return True
    record = dataclasses.is_dataclass(value) and "Args" not in sections(value)
    return not record and not issubclass(value, Warning)


@pytest.mark.parametrize("name", FUNCTIONS)
def test_a_function_documents_arguments_and_errors(name: str) -> None:
    assert missing(FUNCTIONS[name], sections(FUNCTIONS[name])) == set()


@pytest.mark.parametrize("name", CLASSES)
def test_a_class_documents_arguments_and_errors(name: str) -> None:
    kind = CLASSES[name]
    found = {
        method: lacking
        for method, function, inherited in methods(kind)
        if (lacking := missing(function, sections(function), inherited=inherited))
    }
    # Python makes the constructor of a dataclass, whose fields are its arguments.
    init = None if dataclasses.is_dataclass(kind) else vars(kind).get("__init__")
    assert found == {}
    assert not init or missing(init, sections(kind)) == set()


@pytest.mark.parametrize("name", [name for name, value in OBJECTS.items() if needs_example(value)])
def test_a_public_object_has_an_example(name: str) -> None:
    assert "Example" in sections(OBJECTS[name])


def test_the_check_sees_what_is_missing() -> None:
    def undocumented(value: int) -> None:
        """Something."""
        if value:
            raise ValueError(value)

    assert missing(undocumented, sections(undocumented)) == {"Args", "Raises"}
    assert missing(undocumented, {"Args", "Raises"}) == set()
