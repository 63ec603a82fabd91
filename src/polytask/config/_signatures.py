"""Whether arguments fit a class or a function, without a call."""

import ast
import inspect
import textwrap
import types
import typing
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Literal, Union, get_args, get_origin

from polytask._checks import is_integer, is_number
from polytask._errors import hint

_KEYWORDS = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)
_POSITIONS = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
_SCALARS = (bool, int, float, str)


@dataclass(frozen=True)
class Misfit:
    """An argument that does not fit: its name, the rule, the value and the fix."""

    name: str
    rule: str
    found: str | None = None
    fix: str | None = None


@dataclass(frozen=True)
class Signature:
    """The arguments of a class or a function.

    Args:
        parameters: By name, in order.
        takes_any: Whether it accepts other keywords too.
    """

    parameters: Mapping[str, inspect.Parameter]
    takes_any: bool

    @property
    def names(self) -> list[str]:
        """The arguments that can be given by name."""
        return [name for name, parameter in self.parameters.items() if parameter.kind in _KEYWORDS]


def signature_of(target: Callable[..., Any]) -> Signature | None:
    """The arguments of a class or function, or None if it has no signature.

    Keywords that a constructor only passes on are followed to the constructor that uses them.

    Example:
        >>> from torch import nn
        >>> signature_of(nn.LSTM).names[:2]
        ['input_size', 'hidden_size']
    """
    init = inspect.getattr_static(target, "__init__", None) if inspect.isclass(target) else None
    declared = typing.get_overloads(init) if isinstance(init, types.FunctionType) else []
    try:
        if declared:
            parameters = list(inspect.signature(declared[0]).parameters.values())[1:]
        else:
            parameters = list(inspect.signature(target).parameters.values())
    except ValueError:
        return None
    named = {
        parameter.name: parameter for parameter in parameters if parameter.kind is not parameter.VAR_KEYWORD
    }
    takes_any = len(named) < len(parameters)
    if takes_any and inspect.isclass(target) and isinstance(init, types.FunctionType):
        inherited, takes_any = _passed_on(target)
        named |= {name: parameter for name, parameter in inherited.items() if name not in named}
    return Signature(named, takes_any)


def _passed_on(cls: type) -> tuple[dict[str, inspect.Parameter], bool]:
    """Parameters of the constructors that receive ``**kwargs``, and whether other keywords are accepted."""
    found: dict[str, inspect.Parameter] = {}
    for base in cls.__mro__:
        init = vars(base).get("__init__")
        if not isinstance(init, types.FunctionType):
            continue
        parameters = list(inspect.signature(init).parameters.values())[1:]
        rest = next((p.name for p in parameters if p.kind is p.VAR_KEYWORD), None)
        for parameter in parameters:
            if parameter.kind in _KEYWORDS:
                optional = parameter if base is cls else parameter.replace(default=None)
                found.setdefault(parameter.name, optional.replace(kind=inspect.Parameter.KEYWORD_ONLY))
        if rest is None:
            return found, False
        if f"{base.__module__}.{base.__qualname__}" == "torch.nn.modules.module.Module":
            return found, False  # accepts keywords only to refuse them
        if not _passes_on(init, rest):
            return found, True
    return found, False


def _passes_on(init: types.FunctionType, rest: str) -> bool:
    try:
        tree = ast.parse(textwrap.dedent(inspect.getsource(init)))
    except (OSError, SyntaxError):
        return False
    uses = [node for node in ast.walk(tree) if isinstance(node, ast.Name) and node.id == rest]
    calls = [
        node
        for node in ast.walk(tree)
        if isinstance(node, ast.Call)
        and isinstance(node.func, ast.Attribute)
        and node.func.attr == "__init__"
        and any(k.arg is None and isinstance(k.value, ast.Name) and k.value.id == rest for k in node.keywords)
    ]
    return len(uses) == 1 and len(calls) == 1


def misfits(
    target: Callable[..., Any],
    positional: list[Any],
    keywords: Mapping[str, Any],
    later: Iterable[str] = (),
    partial: bool = False,
    unknown_type: Callable[[Any], bool] = lambda value: False,
    others: Iterable[str] = (),
) -> list[Misfit]:
    """The arguments that do not fit the target's signature.

    Args:
        target: A class or function.
        positional: Arguments by position.
        keywords: Arguments by name.
        later: Arguments that are given when the object is built.
        partial: Whether arguments may be missing.
        unknown_type: Whether a value's type is known only once it is built.
        others: Further names to suggest.

    Example:
        >>> from torch import nn
        >>> [misfit.fix for misfit in misfits(nn.Linear, [2], {"out_feature": 3})]
        ["Did you mean 'out_features'?", 'Give it a value']
    """
    signature = signature_of(target)
    if signature is None:
        return []
    positions = [p for p in signature.parameters.values() if p.kind in _POSITIONS]
    star = any(p.kind is p.VAR_POSITIONAL for p in signature.parameters.values())
    found = []
    if len(positional) > len(positions) and not star:
        rule = f"accepts at most {len(positions)} arguments by position"
        found.append(Misfit("_args_", rule, str(len(positional))))
    by_position = dict(zip((p.name for p in positions), positional, strict=False))
    free = [name for name in signature.names if name not in by_position and name not in later] + list(others)
    for name in keywords:
        if name in by_position:
            found.append(Misfit(name, "is given twice", "once in _args_, once by name", "Remove one"))
        elif name not in signature.names and not signature.takes_any:
            found.append(
                Misfit(name, f"{_name(target)} has no argument '{name}'", None, hint(name, free, "Arguments"))
            )
    given = {**by_position, **keywords}
    hints = _hints(target)
    for name, parameter in signature.parameters.items():
        if name in given:
            wrong = (
                None if unknown_type(given[name]) else _wrong_type(given[name], parameter, hints.get(name))
            )
            if wrong is not None:
                found.append(Misfit(name, *wrong))
        elif not partial and name not in later and _required(parameter, star):
            found.append(
                Misfit(name, f"{_name(target)} needs the argument '{name}'", None, "Give it a value")
            )
    return found


def _name(target: Callable[..., Any]) -> str:
    return str(getattr(target, "__qualname__", target))


def _required(parameter: inspect.Parameter, star: bool) -> bool:
    return parameter.default is parameter.empty and parameter.kind in (*_KEYWORDS, *_POSITIONS)


def _hints(target: Callable[..., Any]) -> dict[str, Any]:
    source = _constructor(target) if inspect.isclass(target) else target
    declared = typing.get_overloads(source) if isinstance(source, types.FunctionType) else []
    function = declared[0] if declared else source
    found: dict[str, Any] = {}
    for name, annotation in getattr(function, "__annotations__", {}).items():
        alone = types.SimpleNamespace(__annotations__={name: annotation})
        try:
            found |= typing.get_type_hints(alone, getattr(function, "__globals__", {}))
        except (NameError, TypeError, AttributeError, SyntaxError):
            continue  # for type checkers only: there is no type to compare with
    return found


def _constructor(cls: type) -> object:
    """``__new__`` or ``__init__``, whichever the class defines last."""
    for base in cls.__mro__:
        own = vars(base)
        for name in ("__new__", "__init__"):
            if name in own:
                return own[name].__func__ if isinstance(own[name], staticmethod) else own[name]
    return cls


def _wrong_type(
    value: Any, parameter: inspect.Parameter, annotation: Any
) -> tuple[str, str, str | None] | None:
    if annotation is None or (value is None and parameter.default is None) or _accepts(annotation, value):
        return None
    fix = None
    if isinstance(value, str) and _parses_as_float(value) and _accepts(annotation, float(value)):
        fix = "Write the number without quotes"
    elif isinstance(value, str) and _names_objects(annotation):
        fix = "Write a mapping with a _target_"
    return f"must be {_readable(annotation)}", repr(value), fix


def _names_objects(annotation: Any) -> bool:
    """Whether an annotation, or one of its parts, is a class of objects that a config builds."""
    if get_origin(annotation) in (Union, types.UnionType):
        return any(map(_names_objects, get_args(annotation)))
    return inspect.isclass(annotation) and _is_never_scalar(annotation, "")


def _parses_as_float(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def _accepts(annotation: Any, value: Any) -> bool:
    """Whether a plain value fits an annotation; True if that cannot be known."""
    if annotation is Any or value is annotation:
        return True
    origin = get_origin(annotation)
    if origin in (Union, types.UnionType):
        return any(_accepts(part, value) for part in get_args(annotation))
    if origin is Literal:
        return any(value == choice and type(value) is type(choice) for choice in get_args(annotation))
    if annotation is type(None):
        return value is None
    if annotation is bool:
        return isinstance(value, bool)
    if annotation is int:
        return is_integer(value)
    if annotation is float:
        return is_number(value)
    if annotation is str:
        return isinstance(value, str)
    if (origin or annotation) in (dict, Mapping) and isinstance(value, list | dict):
        inner = get_args(annotation)
        return isinstance(value, dict) and all(_accepts(inner[1], entry) for entry in value.values() if inner)
    return not (isinstance(value, _SCALARS) and _is_never_scalar(origin or annotation, value))


def _is_never_scalar(annotation: Any, value: Any) -> bool:
    if not inspect.isclass(annotation):
        return annotation is Callable
    if annotation.__module__ in ("builtins", "collections.abc") and annotation is not object:
        return not isinstance(value, annotation)
    names = {f"{base.__module__}.{base.__qualname__}" for base in annotation.__mro__}
    return bool(names & {"torch.Tensor", "torch.nn.modules.module.Module"})


def _readable(annotation: Any) -> str:
    origin = get_origin(annotation)
    if origin in (Union, types.UnionType):
        return " or ".join(dict.fromkeys(_readable(part) for part in get_args(annotation)))
    if origin is Literal:
        return "one of " + ", ".join(map(repr, get_args(annotation)))
    if annotation is type(None):
        return "null"
    if origin in (dict, Mapping):
        return f"a mapping to values, each {_readable(get_args(annotation)[1])}"
    names = {int: "an integer", float: "a number", str: "a string", bool: "true or false", Any: "any"}
    if annotation in (dict, Mapping):
        return "a mapping"
    if annotation in names or not inspect.isclass(annotation):
        return names.get(annotation, getattr(annotation, "__name__", str(annotation)))
    return f"{'an' if annotation.__name__[0] in 'AEIOU' else 'a'} {annotation.__name__}"
