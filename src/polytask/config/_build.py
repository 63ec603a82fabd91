"""Nodes with a ``_target_``, built depth first, each one once."""

import functools
import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from polytask._errors import RunError, UserError
from polytask.config._kinds import check_arguments, is_kind, is_value
from polytask.config._read import KeyPath, Plain, dotted
from polytask.config._references import References, Where, at, meant, referred
from polytask.config._targets import Targets

WORDS = ("_target_", "_partial_", "_args_")
NAMED_LISTS: tuple[KeyPath, ...] = (("trainer", "callbacks"), ("trainer", "logger"))
"""Keys that take a list, or a mapping of names to what stands in the list."""


@dataclass(frozen=True)
class Call:
    """What a node with a ``_target_`` asks for.

    Args:
        positional: ``_args_``.
        keywords: The other keys.
        partial: ``_partial_``.
    """

    positional: list[Any]
    keywords: dict[str, Any]
    partial: bool

    @classmethod
    def of(cls, node: Mapping[Any, Any]) -> "Call":
        """The call that a node asks for."""
        keywords = {str(key): value for key, value in node.items() if key not in WORDS}
        positional = node.get("_args_", [])
        return cls(
            positional if isinstance(positional, list) else [], keywords, node.get("_partial_") is True
        )


@dataclass(frozen=True)
class Deferral:
    """What is built later, because an argument of it exists only then.

    Args:
        argument: The argument that comes later.
        factory: What keeps the rest until then.
        options: The factory's own arguments.
    """

    argument: str
    factory: Callable[..., Any]
    options: tuple[str, ...]


def deferral(target: object, call: Call) -> Deferral | None:
    """How an optimizer without parameters, or a scheduler without optimizer, is kept; else None."""
    for kind, argument in (("Optimizer", "params"), ("lr_scheduler.LRScheduler", "optimizer")):
        if is_kind(target, f"torch.optim.{kind}") and argument not in call.keywords and not call.positional:
            from polytask import optim

            factory = optim.OptimizerFactory if argument == "params" else optim.SchedulerFactory
            own = inspect.signature(target).parameters  # type: ignore[arg-type]
            options = (name for name in inspect.signature(factory).parameters if name not in ("build", *own))
            return Deferral(argument, factory, tuple(options))
    return None


class Builder:
    """Builds the nodes of a resolved config; a node that is asked for twice is the same object.

    Args:
        plain: A resolved config.
        targets: Finds what targets name.
        where: From a path to how messages name it.
    """

    def __init__(self, plain: Plain, targets: Targets, where: Where) -> None:
        self._plain = plain
        self._targets = targets
        self._where = where
        self._references = References(plain, where)
        self._built: dict[KeyPath, Any] = {}
        self._building: list[KeyPath] = []

    def build(self, path: KeyPath, given: Mapping[str, Any] | None = None) -> Any:
        """The object, mapping, list or value at a path.

        Args:
            path: Where it stands.
            given: Arguments that take the place of the node's own, which are not built then.

        Raises:
            UserError: Where a target is refused, or cannot be built.
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
            raise UserError(self._where(path), "what is built needs itself", circle, "Cut the circle")
        self._building.append(path)
        try:
            self._built[path] = self._object(node, path, given)
        finally:
            self._building.pop()
        return self._built[path]

    def _object(self, node: Plain, path: KeyPath, given: Mapping[str, Any]) -> Any:
        target = self._targets.find(node["_target_"], self._where(path))
        call = Call.of(node)
        positional = self._value(call.positional, (*path, "_args_"))
        own = {name: value for name, value in call.keywords.items() if name not in given}
        keywords = {**{name: self._value(value, (*path, name)) for name, value in own.items()}, **given}
        if is_value(target):
            return target
        check_arguments(target, keywords, self._where(path))
        if (later := deferral(target, call)) is not None:
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
            found = f"{type(error).__name__}: {' '.join(str(error).split())}"
            raise UserError(self._where(path), f"'{name}' could not be built", found) from error
