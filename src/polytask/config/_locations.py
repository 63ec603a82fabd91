"""The line of a key in the user's files."""

from collections.abc import Iterable, Sequence
from typing import Self

import yaml

from polytask.config._overrides import MOVED
from polytask.config._read import LOADER, KeyPath, Source, dotted


class Location(str):
    """The name of a key in messages.

    Args:
        text: For example ``config.yaml:12 system.model.width``.
        key: The dotted key in it.

    Attributes:
        key: As given.

    Example:
        >>> Location("config.yaml:12 system.model.width", "system.model.width").key
        'system.model.width'
    """

    def __new__(cls, text: str, key: str = "") -> Self:
        """A string that carries its key."""
        made = super().__new__(cls, text)
        made.key = key
        return made

    key: str


class Locations:
    """Names a path for a message: ``config.yaml:12 system.model.width``.

    A file is parsed again when the first line in it is needed.

    Args:
        sources: The files that were merged, in order.
        overridden: Paths that were set on the command line, and have no line.
    """

    def __init__(self, sources: Sequence[Source], overridden: Iterable[KeyPath] = ()) -> None:
        self._sources = sources
        self._roots: dict[int, yaml.Node | None] = {}
        self._overridden = tuple(overridden)

    def __call__(self, path: KeyPath) -> Location:
        name = dotted(path)
        if any(path[: len(set_path)] == set_path for set_path in self._overridden):
            return Location(f"override {name}", name)
        depth, line = 0, None
        for index, source in enumerate(self._sources):
            if source.text is None:
                continue
            if index not in self._roots:
                self._roots[index] = yaml.compose(source.text, Loader=LOADER)
            found, number = _line(self._roots[index], path)
            if found >= max(depth, 1):
                depth, line = found, f"{source.name}:{number}"
        if line is None and self._sources:
            line = self._sources[-1].name
        return Location(f"{line or ''} {name}".strip() or "config", name)


def _line(root: yaml.Node | None, path: KeyPath) -> tuple[int, int]:
    """How many keys of the path are in the file, and the line of the last one."""
    moved = path[:1] == ("system",) and path[1:2] and path[1] in MOVED
    found = _descend(root, path)
    return max(found, _descend(root, path[1:])) if moved else found


def _descend(node: yaml.Node | None, path: KeyPath) -> tuple[int, int]:
    depth, line = 0, 1
    for key in path:
        pair = _child(node, str(key))
        if pair is None:
            break
        mark, node = pair
        depth, line = depth + 1, mark.start_mark.line + 1
    return depth, line


def _child(node: yaml.Node | None, key: str) -> tuple[yaml.Node, yaml.Node] | None:
    if isinstance(node, yaml.MappingNode):
        return next((pair for pair in node.value if pair[0].value == key), None)
    if isinstance(node, yaml.SequenceNode) and key.isdecimal() and int(key) < len(node.value):
        return node.value[int(key)], node.value[int(key)]
    return None
