r"""References in a config: ``$@a.b``, ``@a.b`` and ``${a.b}``.

Strings are kept in their source form: a literal that starts with ``@`` or ``$`` is written ``\@``
or ``\$``, and a literal ``${`` anywhere is written ``\${``. `unescape` returns the literal.
"""

import re
from collections.abc import Callable
from typing import Any

from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from polytask._errors import Reason, UserError, hint
from polytask.config._read import Key, KeyPath, Plain, dotted

Where = Callable[[KeyPath], str]

_KEY = r"[\w-]+(?:\.[\w-]+|\[\d+\])*"
_REFERENCE = re.compile(rf"\$?@({_KEY})|\$\{{({_KEY})\}}")
_INNER = re.compile(rf"(?<!\\)\$\{{({_KEY})\}}")
_EMBEDDED = re.compile(r"(?<!\\)(?:\\\\)*\$\{")
_ENVIRONMENT = re.compile(r"(?<!\\)((?:\\\\)*)\$\{(\s*oc\.env\s*:[^{}]*)\}")
_ALLOWED = re.compile(r"\$\{\s*(?:oc\.env\s*:[^{}]*\}|[\w.\-\[\]]+\s*\})")
# Enclose an environment variable while the string around it is resolved.
_KEPT = re.compile("\ue000([^\ue000\ue001]*)\ue001")
_ESCAPED_START = re.compile(r"\\+(?:@|\$(?!\{))")
_ESCAPED_BRACE = re.compile(r"(\\+)\$\{")
_BARE_BRACE = re.compile(r"(\\*)\$\{")


def referred(text: object) -> str | None:
    """The dotted key that a whole string refers to, or None if it is not a reference.

    Example:
        >>> referred("$@trainer.max_epochs"), referred("${a[1].b}"), referred("a")
        ('trainer.max_epochs', 'a.1.b', None)
    """
    match = _REFERENCE.fullmatch(text) if isinstance(text, str) else None
    return re.sub(r"\[(\d+)\]", r".\1", match[1] or match[2]) if match else None


def unescape(text: str) -> str:
    r"""The literal value of a string in a config.

    Example:
        >>> unescape(r"\@name"), unescape(r"\${x}"), unescape("plain")
        ('@name', '${x}', 'plain')
    """
    if _ESCAPED_START.match(text):
        text = text[1:]
    return _ESCAPED_BRACE.sub(lambda match: match[1][: len(match[1]) // 2] + "${", text)


def escape(text: str) -> str:
    r"""The string whose literal value in a config is ``text``.

    Example:
        >>> escape("@name"), escape("cost: ${x}")
        ('\\@name', 'cost: \\${x}')
    """
    text = _BARE_BRACE.sub(lambda match: match[1] * 2 + r"\${", text)
    return "\\" + text if re.match(r"\\*(?:@|\$(?!\{))", text) else text


def has_environment(value: object) -> bool:
    """Whether a string names an environment variable.

    Example:
        >>> has_environment("${oc.env:HOME}/data"), has_environment("data")
        (True, False)
    """
    return isinstance(value, str) and _ENVIRONMENT.search(value) is not None


def meant(text: str, where: str) -> str | None:
    r"""The literal value of a string in a config, with the values of environment variables.

    A string that is one variable with the default ``null`` may be None.

    Raises:
        UserError: If a variable is not set and has no default.

    Example:
        >>> meant(r"${oc.env:POLYTASK_ABSENT,data}/\${x}", "root")
        'data/${x}'
    """
    if (whole := _ENVIRONMENT.fullmatch(text)) and not whole[1]:
        return _variable(whole[2], where)
    values: list[str | None] = []

    def keep(match: re.Match[str]) -> str:
        values.append(_variable(match[2], where))
        return match[1][: len(match[1]) // 2] + f"\ue000{len(values) - 1}\ue001"

    literal = unescape(_ENVIRONMENT.sub(keep, text))
    return _KEPT.sub(lambda match: str(values[int(match[1])]), literal) if values else literal


def _variable(call: str, where: str) -> str | None:
    try:
        value = OmegaConf.create({"value": f"${{{call}}}"})["value"]
        return None if value is None else str(value)
    except OmegaConfBaseException as error:
        first = str(error).splitlines()[0]
        if match := re.search(r"Environment variable '([^']+)' not found", first):
            rule, fix = f"the environment variable {match[1]} is not set", f"${{oc.env:{match[1]},value}}"
            raise UserError(where, rule, None, f"Set it, or give a default: {fix}") from None
        raise UserError(
            where, f"'${{{call}}}' cannot be read", Reason(first), "Write ${oc.env:NAME}"
        ) from None


def step(node: object, segments: list[str]) -> tuple[Key, list[str]] | None:
    """The key of ``node`` that the first segments name, and the remaining segments.

    A key may contain dots (``groups: {heads.digit: ...}``), so several segments may be one key.
    """
    if isinstance(node, dict):
        names = {str(key): key for key in node}
        for count in range(1, len(segments) + 1):
            if (name := ".".join(segments[:count])) in names:
                return names[name], segments[count:]
    if isinstance(node, list) and segments[0].isdecimal() and int(segments[0]) < len(node):
        return int(segments[0]), segments[1:]
    return None


def options(node: object) -> list[str]:
    """The names that may follow a node's key."""
    if isinstance(node, dict):
        return [str(key) for key in node]
    return [str(index) for index in range(len(node))] if isinstance(node, list) else []


def missing(where: str, dotted_key: str, path: KeyPath, node: object, wanted: str) -> UserError:
    """The error for a key that does not exist, with the nearest one."""
    names = [dotted((*path, name)) for name in options(node)]
    return UserError(
        where, f"there is no key '{dotted_key}'", None, hint(dotted((*path, wanted)), names, "Keys")
    )


def at(tree: Any, path: KeyPath) -> Any:
    """The node at a path that exists."""
    for key in path:
        tree = tree[key]
    return tree


def has_target(node: object) -> bool:
    """Whether the node or a node in it has a ``_target_``."""
    if isinstance(node, dict):
        return "_target_" in node or any(map(has_target, node.values()))
    return isinstance(node, list) and any(map(has_target, node))


class References:
    """Resolves the references of one merged config.

    Args:
        tree: The merged config.
        where: From a path to its name in messages.
    """

    def __init__(self, tree: Plain, where: Where) -> None:
        self.tree = tree
        self.where = where
        self.problems: list[UserError] = []
        self._interpolated: DictConfig | None = None
        self._single: set[KeyPath] = set()  # strings whose inner keys have been followed

    def find(self, key: str, where: str, trail: tuple[str, ...] = ()) -> KeyPath:
        """The path of the node that ``key`` refers to, directly or through other references.

        Raises:
            UserError: If there is no such key, or references form a circle.
        """
        if key in trail:
            raise _cycle(where, (*trail[trail.index(key) :], key))
        trail = (*trail, key)
        path: KeyPath = ()
        node: Any = self.tree
        left = key.split(".")
        while left:
            found = step(node, left)
            if found is None:
                raise missing(where, key, path, node, left[0])
            path, left = (*path, found[0]), found[1]
            node = node[found[0]]
            if (onward := referred(node)) is not None:
                path = self.find(onward, where, trail)
                node = at(self.tree, path)
        return path

    def resolve(self) -> Plain:
        """The config as plain data; errors are added to ``problems``.

        A reference to an object is kept, as ``$@key``; any other is replaced by its value. An environment
        variable is kept too, since its value may be a secret and the config is saved.
        """
        resolved: Plain = self._resolve(self.tree, (), ())
        return resolved

    def _resolve(self, node: Any, path: KeyPath, trail: tuple[KeyPath, ...]) -> Any:
        if isinstance(node, dict):
            return {key: self._resolve(value, (*path, key), trail) for key, value in node.items()}
        if isinstance(node, list):
            return [self._resolve(value, (*path, index), trail) for index, value in enumerate(node)]
        if not isinstance(node, str):
            return node
        try:
            return self._string(node, path, trail)
        except UserError as error:
            if all((error.where, error.rule) != (known.where, known.rule) for known in self.problems):
                self.problems.append(error)
            return node

    def _string(self, text: str, path: KeyPath, trail: tuple[KeyPath, ...]) -> Any:
        if (key := referred(text)) is not None:
            found = self.find(key, self.where(path))
            node = at(self.tree, found)
            if has_target(node):
                return f"$@{dotted(found)}"
            if found in trail or path[: len(found)] == found:
                raise _cycle(self.where(path), (*map(dotted, trail), dotted(path), dotted(found)))
            return self._resolve(node, found, (*trail, found))
        if text == "???":
            raise UserError(self.where(path), "a value is required", "'???'", "Set it here or by key=value")
        if re.match(r"\$(?!\{)", text):
            fix = r"Refer to a key by $@a.b, write a literal as \$..."
            raise UserError(self.where(path), "a config must not contain Python expressions", repr(text), fix)
        if text.startswith("@"):
            raise UserError(
                self.where(path),
                "a reference must be '@' and a dotted key",
                repr(text),
                r"Write a literal as '\@...'",
            )
        return self._embedded(text, path) if _EMBEDDED.search(text) else text

    def _embedded(self, text: str, path: KeyPath) -> Any:
        if _calls(text):
            rule = "a string must not call resolvers other than ${key} and ${oc.env:NAME}"
            raise UserError(self.where(path), rule, repr(text), r"A literal ${ is written \${")
        if not _EMBEDDED.search(_ENVIRONMENT.sub("", text)):
            return text
        self._check_inner(text, path, (path,))
        try:
            if self._interpolated is None:
                self._interpolated = OmegaConf.create(_interpolations(self.tree))
            node: Any = self._interpolated
            for key in path:
                node = node[key]
        except OmegaConfBaseException as error:
            # OmegaConf wraps it.
            if isinstance(_origin(error), RecursionError):
                raise RecursionError from None
            raise self._interpolation_error(error, text, path) from None
        if OmegaConf.is_config(node):
            raise self._not_single(text, path)
        return _KEPT.sub(r"${\1}", escape(node)) if isinstance(node, str) else node

    def _check_inner(self, text: str, path: KeyPath, trail: tuple[KeyPath, ...]) -> None:
        """Check that the keys inside a string lead to single values, and not back to it."""
        for key in _INNER.findall(text):
            found = self.find(key, self.where(path))
            if found in trail:
                raise _cycle(self.where(path), (*map(dotted, trail[trail.index(found) :]), dotted(found)))
            node = at(self.tree, found)
            if isinstance(node, dict | list):
                raise self._not_single(text, path)
            if isinstance(node, str) and found not in self._single:
                self._check_inner(node, found, (*trail, found))
                self._single.add(found)

    def _not_single(self, text: str, path: KeyPath) -> UserError:
        rule = "a string must be made of single values"
        fix = "Refer to a mapping or list by its key alone, $@a.b"
        return UserError(self.where(path), rule, repr(text), fix)

    def _interpolation_error(self, error: OmegaConfBaseException, text: str, path: KeyPath) -> UserError:
        where = self.where(path)
        first = str(error).splitlines()[0]
        return UserError(where, f"{text!r} cannot be resolved", Reason(first), r"A literal ${ is written \${")


def _origin(error: BaseException) -> BaseException:
    """The first of the errors that led to this one."""
    while error.__context__ is not None:
        error = error.__context__
    return error


def _calls(text: str) -> bool:
    """Whether a string does more than look up a key or an environment variable."""
    return any(not _ALLOWED.match(text, match.end() - 2) for match in _EMBEDDED.finditer(text))


def _cycle(where: str, keys: tuple[str, ...]) -> UserError:
    return UserError(
        where, "references must not form a circle", " -> ".join(keys), "Give one of them a value"
    )


def _interpolations(node: Any) -> Any:
    """The tree with its references as OmegaConf writes them, and leading escapes undone."""
    if isinstance(node, dict):
        return {key: _interpolations(value) for key, value in node.items()}
    if isinstance(node, list):
        return [_interpolations(value) for value in node]
    if (key := referred(node)) is not None:
        return "${" + re.sub(r"\.(\d+)(?=\.|$)", r"[\1]", key) + "}"
    if isinstance(node, str) and _calls(node):
        return escape(node)
    if isinstance(node, str):
        node = _ENVIRONMENT.sub("\\1\ue000\\2\ue001", node)
    return node[1:] if isinstance(node, str) and _ESCAPED_START.match(node) else node
