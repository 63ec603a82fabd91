"""Where in the user's files a key stands."""

from collections.abc import Iterable, Sequence
from typing import Self

import yaml

from polytask.config._overrides import MOVED
from polytask.config._read import LOADER, KeyPath, Source, dotted


class Location(str):
    """Where a key stands, as messages name it.

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


class Places:
    """Names a path for a message: ``config.yaml:12 system.model.width``.

    A text is parsed again when the first line in it is asked for.

    Args:
        sources: The files that were merged, in order.
        overridden: Paths that were set on the command line; they have no line.
    """

    def __init__(self, sources: Sequence[Source], overridden: Iterable[KeyPath] = ()) -> None:
        self._sources = sources
        self._roots: dict[int, yaml.Node | None] = {}
        self._overridden = tuple(overridden)

    def __call__(self, path: KeyPath) -> Location:
        name = dotted(path)
        if any(path[: len(set_path)] == set_path for set_path in self._overridden):
            return Location(f"override {name}", name)
        depth, place = 0, None
        for index, source in enumerate(self._sources):
            if source.text is None:
                continue
            if index not in self._roots:
                self._roots[index] = yaml.compose(source.text, Loader=LOADER)
            found, line = _line(self._roots[index], path)
            if found >= max(depth, 1):
                depth, place = found, f"{source.name}:{line}"
        if place is None and self._sources:
            place = self._sources[-1].name
        return Location(f"{place or ''} {name}".strip() or "config", name)


def _line(root: yaml.Node | None, path: KeyPath) -> tuple[int, int]:
    """How many keys of the path stand under the root, and the line of the last one."""
    moved = path[:1] == ("system",) and path[1:2] and path[1] in MOVED
    found = _walk(root, path)
    return max(found, _walk(root, path[1:])) if moved else found


def _walk(node: yaml.Node | None, path: KeyPath) -> tuple[int, int]:
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
