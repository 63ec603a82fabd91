"""Builds the nodes with a ``_target_``, arguments first, each of them once."""

import functools
import inspect
import sysconfig
import traceback
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from types import FunctionType
from typing import Any

from polytask._errors import Reason, RunError, UserError
from polytask.config._kinds import check_arguments, is_kind, is_value
from polytask.config._read import KeyPath, Plain, dotted
from polytask.config._references import References, Where, at, meant, referred
from polytask.config._resolve import TargetResolver

SPECIAL_KEYS = ("_target_", "_partial_", "_args_")
# By kind: the key of such objects, the argument that is given later, and what holds the others until then.
_FACTORIES = {
    "torch.optim.Optimizer": (("system", "optimizer"), "params", "OptimizerFactory"),
    "torch.optim.lr_scheduler.LRScheduler": (("system", "scheduler"), "optimizer", "SchedulerFactory"),
}
_ROOM = "polytask.optim"
NAMED_LISTS: tuple[KeyPath, ...] = (("trainer", "callbacks"), ("trainer", "logger"))
"""Keys whose value is a list, or a mapping from names to the entries of the list."""


@dataclass(frozen=True)
class TargetCall:
    """The call that a node with a ``_target_`` describes.

    Args:
        positional: ``_args_``.
        keywords: The other keys.
        partial: ``_partial_``.
    """

    positional: list[Any]
    keywords: dict[str, Any]
    partial: bool

    @classmethod
    def of(cls, node: Mapping[Any, Any]) -> "TargetCall":
        """The call that a node describes."""
        keywords = {str(key): value for key, value in node.items() if key not in SPECIAL_KEYS}
        positional = node.get("_args_", [])
        return cls(
            positional if isinstance(positional, list) else [], keywords, node.get("_partial_") is True
        )


@dataclass(frozen=True)
class Deferral:
    """An object that is built later, because one of its arguments exists only then.

    Args:
        argument: The argument that is given later.
        factory: Holds the other arguments until then.
        options: The factory's own arguments.
    """

    argument: str
    factory: Callable[..., Any]
    options: tuple[str, ...]


def deferral(target: object, call: TargetCall, path: KeyPath) -> Deferral | None:
    """How an optimizer without parameters or a scheduler without optimizer is built later; else None.

    Args:
        target: What the node names: a class, or a function that returns an optimizer or a scheduler.
        call: The call that the node describes.
        path: The node's path.
    """
    for kind, (key, name, factory_name) in _FACTORIES.items():
        argument = name if is_kind(target, kind) else _later_argument(target, call, path, key, name)
        if argument is not None and argument not in call.keywords and not call.positional:
            factory = getattr(import_module(_ROOM), factory_name)
            own = inspect.signature(target).parameters  # type: ignore[arg-type]
            options = (name for name in inspect.signature(factory).parameters if name not in ("build", *own))
            return Deferral(argument, factory, tuple(options))
    return None


def _later_argument(target: object, call: TargetCall, path: KeyPath, key: KeyPath, name: str) -> str | None:
    """The argument of a function that stands for the parameters or the optimizer; None if it has none.

    It is the first one where the config has an optimizer or a scheduler, whatever it is called. Below that
    key and in ``vars`` it is one of the usual name that the function requires.
    """
    if not isinstance(target, FunctionType):
        return None
    parameters = inspect.signature(target).parameters
    if path == key:
        return next(iter(parameters), None)
    required = name in parameters and parameters[name].default is inspect.Parameter.empty
    return name if required and not call.partial and (path[:2] == key or path[:1] == ("vars",)) else None


class Builder:
    """Builds the nodes of a resolved config; a node is built once, whatever the number of references to it.

    Args:
        plain: A resolved config.
        targets: Finds the objects that targets name.
        where: From a path to its name in messages.
    """

    def __init__(self, plain: Plain, targets: TargetResolver, where: Where) -> None:
        self._plain = plain
        self._targets = targets
        self._where = where
        self._references = References(plain, where)
        self._built: dict[KeyPath, Any] = {}
        self._building: list[KeyPath] = []

    def build(self, path: KeyPath, given: Mapping[str, Any] | None = None) -> Any:
        """The object, mapping, list or value at a path.

        Args:
            path: The path.
            given: Arguments that replace those of the node, which are then not built.

        Raises:
            UserError: If a target is refused, or cannot be built.
        """
        node = at(self._plain, path)
        return self._once(node, path, given) if given else self._value(node, path)

    def _value(self, node: Any, path: KeyPath) -> Any:
        if (key := referred(node)) is not None:
            return self.build(self._references.find(key, self._where(path)))
        if isinstance(node, str):
            return meant(node, self._where(path))
        if isinstance(node, list):
            return [self._value(value, (*path, index)) for index, value in enumerate(node)]
        if not isinstance(node, dict):
            return node
        if "_target_" in node:
            return self._once(node, path, {})
        built = {key: self._value(value, (*path, key)) for key, value in node.items()}
        if path in NAMED_LISTS:
            return [value for value in built.values() if value is not None]
        return built

    def _once(self, node: Plain, path: KeyPath, given: Mapping[str, Any]) -> Any:
        if path in self._built and not given:
            return self._built[path]
        if path in self._building:
            circle = " -> ".join(dotted(step) for step in [*self._building, path])
            raise UserError(
                self._where(path), "an object must not need itself", circle, "Remove one of the references"
            )
        self._building.append(path)
        try:
            self._built[path] = self._object(node, path, given)
        finally:
            self._building.pop()
        return self._built[path]

    def _object(self, node: Plain, path: KeyPath, given: Mapping[str, Any]) -> Any:
        target = self._targets.find(node["_target_"], self._where(path))
        call = TargetCall.of(node)
        positional = self._value(call.positional, (*path, "_args_"))
        own = {name: value for name, value in call.keywords.items() if name not in given}
        keywords = {**{name: self._value(value, (*path, name)) for name, value in own.items()}, **given}
        if is_value(target):
            return target
        check_arguments(target, keywords, self._where(path))
        if (later := deferral(target, call, path)) is not None:
            own = {name: keywords.pop(name) for name in later.options if name in keywords}
            target, keywords = later.factory, {"build": functools.partial(target, **keywords), **own}
        elif call.partial:
            return functools.partial(target, *positional, **keywords)
        return self._called(target, positional, keywords, path, str(node["_target_"]))

    def _called(
        self,
        target: Callable[..., Any],
        positional: list[Any],
        keywords: dict[str, Any],
        path: KeyPath,
        name: str,
    ) -> Any:
        try:
            return target(*positional, **keywords)
        except RunError:
            raise
        except UserError as error:
            raise error.at(f"{self._where(path)}: {error.where}") from error
        except Exception as error:
            rule = f"'{name}' could not be built"
            raise UserError(self._where(path), rule, Reason.of(error), _own_line(error)) from error


def _own_line(error: Exception) -> str | None:
    """The line of the user's own code that raised an error, for the message; None if there is none."""
    installed = (str(Path(__file__).parents[1]), *sysconfig.get_paths().values())
    frames = traceback.extract_tb(error.__traceback__)
    own = [frame for frame in frames if not frame.filename.startswith((*installed, "<"))]
    return f"Look at line {own[-1].lineno} of {own[-1].filename}" if own else None
