"""Finds all problems of a resolved config; the only objects it builds are metrics."""

from collections.abc import Iterator
from typing import Any

from polytask._checks import is_integer
from polytask._errors import UserError, hint, nearest
from polytask.config._build import SPECIAL_KEYS, Builder, TargetCall, deferral
from polytask.config._kinds import check_arguments, is_kind, is_value
from polytask.config._overrides import TOP
from polytask.config._read import KeyPath, Plain, dotted
from polytask.config._references import (
    References,
    Where,
    at,
    has_environment,
    has_target,
    meant,
    referred,
    unescape,
)
from polytask.config._resolve import TargetResolver
from polytask.config._signatures import misfits, signature_of

_KINDS = {
    "trainer": "pytorch_lightning.Trainer",
    "system": "pytorch_lightning.LightningModule",
}


def check(plain: Plain, targets: TargetResolver, where: Where) -> list[UserError]:
    """Every problem of a resolved config.

    Args:
        plain: A resolved config.
        targets: Finds the objects that targets name.
        where: From a path to its name in messages.
    """
    return [
        *_top(plain, where),
        *_circles(plain, where),
        *_data(plain, where),
        *_nodes(plain, plain, (), targets, where),
    ]


def _top(plain: Plain, where: Where) -> Iterator[UserError]:
    for key, value in plain.items():
        if key not in TOP:
            yield UserError(where((key,)), f"there is no key '{key}' at the top", None, hint(str(key), TOP))
        elif key in ("trainer", "system", "vars") and not isinstance(value, dict):
            yield UserError(where((key,)), "must be a mapping", repr(value))
    seed = plain.get("seed")
    if seed is not None and not is_integer(seed, 0, 2**32 - 1):
        yield UserError(where(("seed",)), "must be an integer from 0 to 4294967295", repr(seed))
    if "system" not in plain:
        fix = "Add system: {model: ..., criterion: ..., optimizer: ...}"
        yield UserError(where(()), "the key 'system' is required", None, fix)


def _circles(plain: Plain, where: Where) -> Iterator[UserError]:
    """References between objects must not form a circle."""
    references = References(plain, where)
    done: set[KeyPath] = set()

    def visit(path: KeyPath, trail: tuple[KeyPath, ...]) -> Iterator[tuple[frozenset[KeyPath], UserError]]:
        for place, key in _leaves(at(plain, path), path):
            try:
                found = references.find(key, where(place))
            except UserError:
                continue  # reported when the config was resolved
            steps = (*trail, place)
            back = [index for index, step in enumerate(steps) if step[: len(found)] == found]
            if back:
                circle = steps[back[0] :]
                shown = " -> ".join(map(dotted, circle))
                rule, fix = "an object must not need itself", "Remove one of the references"
                error = UserError(where(place), rule, shown, fix)
                yield frozenset(circle), error
            elif found not in done:
                yield from visit(found, steps)
                done.add(found)

    found: dict[frozenset[KeyPath], UserError] = {}
    for circle, error in visit((), ()):
        found.setdefault(circle, error)
    yield from found.values()


def _leaves(node: Any, path: KeyPath) -> Iterator[tuple[KeyPath, str]]:
    if isinstance(node, dict):
        for key, value in node.items():
            yield from _leaves(value, (*path, key))
    elif isinstance(node, list):
        for index, value in enumerate(node):
            yield from _leaves(value, (*path, index))
    elif (key := referred(node)) is not None:
        yield path, key


def _data(plain: Plain, where: Where) -> Iterator[UserError]:
    """Only data may refer to data: a reference from elsewhere would read it whenever the rest is built."""
    system = plain.get("system")
    names = [name for name in system if name != "dataloaders"] if isinstance(system, dict) else []
    starts: list[KeyPath] = [("system", name) for name in names if name != "_target_"]
    starts += [("trainer",)] if "trainer" in plain else []
    references = References(plain, where)
    for start in starts:
        for place, found in _reached(references, start, set()):
            if found[:2] == ("system", "dataloaders"):
                rule = f"'{dotted(start)}' must not refer to data, which is read when a stage begins"
                yield UserError(where(place), rule, f"'{dotted(found)}'", "Write the value instead")


def _reached(references: References, start: KeyPath, done: set[KeyPath]) -> Iterator[tuple[KeyPath, KeyPath]]:
    """References under a path, and under the nodes they refer to: the path of each, and of its node."""
    for place, key in _leaves(at(references.tree, start), start):
        try:
            found = references.find(key, references.where(place))
        except UserError:
            continue  # reported when the config was resolved
        yield place, found
        if found not in done:
            done.add(found)
            yield from _reached(references, found, done)


def _nodes(
    node: Any, plain: Plain, path: KeyPath, targets: TargetResolver, where: Where
) -> Iterator[UserError]:
    if isinstance(node, dict):
        yield from _special_keys(node, path, where)
        if "_target_" in node:
            yield from _node(node, plain, path, targets, where)
        for key, value in node.items():
            yield from _nodes(value, plain, (*path, key), targets, where)
    elif isinstance(node, list):
        for index, value in enumerate(node):
            yield from _nodes(value, plain, (*path, index), targets, where)
    elif has_environment(node):
        try:
            meant(node, where(path))
        except UserError as error:
            yield error


def _special_keys(node: Plain, path: KeyPath, where: Where) -> Iterator[UserError]:
    for key, value in node.items():
        own = (*path, key)
        special = (
            isinstance(key, str)
            and key.startswith("_")
            and bool(key.endswith("_") or nearest(key, SPECIAL_KEYS))
        )
        if special and key not in SPECIAL_KEYS:
            yield UserError(where(own), f"there is no key '{key}'", None, hint(str(key), SPECIAL_KEYS))
        elif special and "_target_" not in node:
            yield UserError(
                where(own), f"'{key}' is allowed only next to a _target_", None, "Add the _target_"
            )
        elif key == "_partial_" and not isinstance(value, bool):
            yield UserError(where(own), "must be true or false", repr(value))
        elif key == "_args_" and not isinstance(value, list):
            yield UserError(where(own), "must be a list", repr(value))


def _node(
    node: Plain, plain: Plain, path: KeyPath, targets: TargetResolver, where: Where
) -> Iterator[UserError]:
    try:
        target = targets.find(node["_target_"], where((*path, "_target_")))
    except UserError as error:
        yield error
        return
    call = TargetCall.of(node)
    if is_value(target):
        if call.keywords or call.positional:
            yield UserError(where(path), f"'{node['_target_']}' is a value and has no arguments")
        return
    kind = _KINDS.get(dotted(path))
    if kind is not None and isinstance(target, type) and not is_kind(target, kind):
        yield UserError(where(path), f"must be a {kind}", f"'{node['_target_']}'")
        return
    if dotted(path) != "trainer" and is_kind(target, _KINDS["trainer"]):
        yield UserError(where(path), "a Trainer is allowed under 'trainer' only")
        return
    try:
        check_arguments(target, call.keywords, where(path))
    except UserError as error:
        yield error
        return
    found = list(_arguments(target, call, path, where))
    yield from found
    if not found and _hides_arguments(target) and not call.partial:
        yield from _constructed(target, call, plain, path, targets, where)


def _arguments(target: Any, call: TargetCall, path: KeyPath, where: Where) -> Iterator[UserError]:
    keywords = {name: _literal(value) for name, value in call.keywords.items()}
    parts: list[tuple[Any, list[Any], dict[str, Any], tuple[str, ...]]]
    parts = [(target, call.positional, keywords, ())]
    others: tuple[str, ...] = ()
    if (later := deferral(target, call, path)) is not None:
        others = later.options
        own = {name: keywords.pop(name) for name in later.options if name in keywords}
        parts = [(target, [], keywords, (later.argument,)), (later.factory, [], own, ("build",))]
    for callee, positional, named, given in parts:
        for misfit in misfits(callee, positional, named, given, call.partial, _is_built, others):
            yield UserError(where((*path, misfit.name)), misfit.rule, misfit.found, misfit.fix)


def _literal(value: Any) -> Any:
    return unescape(value) if isinstance(value, str) and referred(value) is None else value


def _is_built(value: Any) -> bool:
    """Whether a value's type is known only when the config is built."""
    return has_target(value) or referred(value) is not None or has_environment(value)


def _hides_arguments(target: Any) -> bool:
    signature = signature_of(target)
    return signature is not None and signature.takes_any and is_kind(target, "torchmetrics.Metric")


def _constructed(
    target: Any, call: TargetCall, plain: Plain, path: KeyPath, targets: TargetResolver, where: Where
) -> Iterator[UserError]:
    """Metrics hide their arguments behind ``**kwargs``: only building one shows whether they fit."""
    if any(map(_is_built, [*call.positional, *call.keywords.values()])):
        return
    try:
        Builder(plain, targets, where).build(path)
    except UserError as error:
        signature = signature_of(target)
        names = signature.names if signature is not None else []
        unknown = [name for name in call.keywords if name not in names and nearest(name, names)]
        for name in unknown:
            rule = f"{target.__name__} has no argument '{name}'"
            yield UserError(where((*path, name)), rule, None, hint(name, names))
        if not unknown:
            yield error
