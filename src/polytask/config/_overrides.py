"""Sets ``key=value`` of the command line in a config."""

from typing import Any

from polytask._errors import UserError, hint
from polytask.config._read import KeyPath, Plain, dotted, parse
from polytask.config._references import missing, options, referred, step

TOP = ("project", "seed", "trainer", "system", "vars", "optimizer", "scheduler")
MOVED = ("optimizer", "scheduler")


def override(tree: Plain, text: str) -> KeyPath:
    """Set the key of ``text`` in ``tree``.

    The value of an existing key is replaced. A new key may be an argument of a node that is built (the check
    compares it with the target's signature) or a known key at the top.

    Args:
        tree: A merged config, changed in place.
        text: ``a.b=value``; the value is YAML.

    Returns:
        The path that was set.

    Raises:
        UserError: If ``text`` is not ``key=value``, or there is no such key.

    Example:
        >>> tree = {"trainer": {"_target_": "pytorch_lightning.Trainer", "max_epochs": 9}}
        >>> override(tree, "trainer.max_epochs=3")
        ('trainer', 'max_epochs')
        >>> tree["trainer"]["max_epochs"]
        3
    """
    key, equals, written = text.partition("=")
    key = key.strip()
    where = f"override '{text}'"
    if not equals or not key or not all(key.split(".")):
        raise UserError(where, "must be key=value", None, "Write for example trainer.max_epochs=3")
    value = _value(written, where)
    segments = key.split(".")
    if segments[0] in MOVED:
        segments.insert(0, "system")
    return _set(tree, segments, value, where)


def _value(written: str, where: str) -> Any:
    """An '@' needs no quotes here: the shell removes those that the user writes."""
    return written if written.startswith("@") else parse(written, where)


def _set(tree: Plain, segments: list[str], value: Any, where: str) -> KeyPath:
    path: KeyPath = ()
    node: Any = tree
    left = segments
    while (found := step(node, left)) is not None:
        key, left = found
        path = (*path, key)
        if not left:
            node[key] = value
            return path
        node = node[key]
    _check_new(node, path, left, ".".join(segments), where)
    for segment in left[:-1]:
        node = node.setdefault(segment, {})
    node[left[-1]] = value
    return (*path, *left)


def _check_new(node: Any, path: KeyPath, left: list[str], key: str, where: str) -> None:
    if (other := referred(node)) is not None:
        instead = dotted((*other.split("."), *left))
        raise UserError(where, f"'{dotted(path)}' is a reference", None, f"Set '{instead}' instead")
    if not path:
        if left[0] not in TOP:
            raise UserError(
                where,
                f"there is no key '{left[0]}'",
                None,
                hint(left[0], dict.fromkeys([*TOP, *options(node)])),
            )
        if left in (["seed"], ["project"], ["vars"]):
            return
        if left[0] == "vars":
            fix = f"Set all of it: vars={{{left[1]}: ...}}"
            raise UserError(where, "the config has no 'vars'", None, fix)
    elif isinstance(node, dict) and "_target_" in node:
        return
    elif not isinstance(node, dict | list):
        raise UserError(where, f"'{dotted(path)}' is a value and has no keys", repr(node))
    raise missing(where, key, path, node, left[0])
