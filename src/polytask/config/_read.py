"""From YAML to plain data; errors name the file and the line."""

import io
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException
from yaml.constructor import ConstructorError
from yaml.scanner import ScannerError

from polytask._errors import Reason, UserError, hint

Key = str | int | float | bool
KeyPath = tuple[Key, ...]
Plain = dict[Key, Any]
LOADER = yaml.CSafeLoader if yaml.__with_libyaml__ else yaml.SafeLoader

# Characters that YAML reserves: no plain string starts with them.
_RESERVED = "`%"
_DEPTH = 100
_BITS = 1024


@dataclass(frozen=True)
class Source:
    """Values and the file they are from.

    Args:
        name: Its name in messages: the file, as the user wrote it.
        values: Its content as plain data.
        text: Its YAML; None if it was not a file.
        folder: The folder that a relative ``project`` is relative to.
    """

    name: str
    values: Plain
    text: str | None = None
    folder: Path | None = None


def read_file(path: str | Path) -> Source:
    """Read one YAML file.

    Raises:
        UserError: If there is no such file, it is not UTF-8, or not YAML with a mapping at its root.
    """
    file, name = Path(path), str(path)
    if file.is_dir():
        raise UserError(name, "must be a YAML file", "a folder", _other_files(file, "*"))
    try:
        text = file.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise UserError(name, "there is no such file", None, _other_files(file.parent, file.name)) from None
    except UnicodeDecodeError as error:
        raise UserError(
            name, "must be encoded in UTF-8", f"byte {error.object[error.start]:#04x} at {error.start}"
        ) from None
    except OSError as error:
        raise UserError(name, "cannot be read", Reason.said(error)) from None
    values = parse(text, name)
    if not isinstance(values, dict):
        raise UserError(name, "must contain a mapping of keys", _kind(values), "Write 'key: value' lines")
    return Source(name, values, text, file.absolute().parent)


def parse(text: str, name: str) -> Any:
    """The plain data of a YAML string.

    Args:
        text: YAML; ``1e-3`` is a float, duplicate keys are errors.
        name: Its name in messages.

    Raises:
        UserError: If it is not YAML, has a duplicate key, or holds anything but plain data.
    """
    scalar = _is_scalar(text)
    text = f"value:\n{_indented(text)}" if scalar else text
    try:
        loaded = OmegaConf.load(io.StringIO(text))
        values = OmegaConf.to_container(loaded, resolve=False)
    except yaml.YAMLError as error:
        raise _syntax_error(error, text, name) from None
    except RecursionError:
        raise _too_deep(name) from None
    except OmegaConfBaseException as error:
        raise _value_error(error, name) from None
    except ValueError as error:  # a number of thousands of digits
        raise UserError(name, "cannot be read", Reason(str(error).split(";")[0])) from None
    if scalar:
        values = values["value"]  # type: ignore[index, call-overload]
    check_plain(values, (), name)
    return values


def _is_scalar(text: str) -> bool:
    """Whether it is one value: OmegaConf reads a single string as a key and refuses a single number."""
    try:
        node = yaml.compose(text, Loader=LOADER)
    except (yaml.YAMLError, RecursionError):
        return False
    return isinstance(node, yaml.ScalarNode) or node is None


def _indented(text: str) -> str:
    return "\n".join(f"  {line}" for line in text.splitlines())


def check_plain(values: object, path: KeyPath, name: str) -> None:
    """Raise if a value is not a mapping, list, string, number, bool or null."""
    if len(path) > _DEPTH:
        raise _too_deep(name)
    if isinstance(values, Mapping):
        for key, value in values.items():
            if not isinstance(key, Key):
                raise UserError(_where(name, path), "a key must be a string or a number", repr(key))
            check_plain(value, (*path, key), name)
    elif isinstance(values, Sequence) and not isinstance(values, str | bytes):
        for index, value in enumerate(values):
            check_plain(value, (*path, index), name)
    elif values is not None and not isinstance(values, str | int | float | bool):
        rule = "a value must be a mapping, list, string, number, bool or null"
        raise UserError(_where(name, path), rule, _kind(values))
    elif isinstance(values, int) and values.bit_length() > _BITS:
        rule = f"an integer must have at most {_BITS} bits"
        raise UserError(_where(name, path), rule, f"{values.bit_length()} bits", "Write a smaller one")


def _too_deep(name: str) -> UserError:
    return UserError(name, f"mappings and lists must be nested at most {_DEPTH} deep", None, "Flatten them")


def _where(name: str, path: KeyPath) -> str:
    return f"{name} {dotted(path)}" if path else name


def dotted(path: KeyPath) -> str:
    """The path as users write it.

    Example:
        >>> dotted(("trainer", "callbacks", 0))
        'trainer.callbacks.0'
    """
    return ".".join(str(key) for key in path)


def _kind(value: object) -> str:
    return "nothing" if value is None else f"a {type(value).__name__}"


def _other_files(folder: Path, wanted: str) -> str | None:
    found = sorted(file.name for pattern in ("*.yaml", "*.yml") for file in folder.glob(pattern))
    return hint(wanted, found, f"YAML files in {folder}") if found else None


def _syntax_error(error: yaml.YAMLError, text: str, name: str) -> UserError:
    mark = getattr(error, "problem_mark", None)
    problem = str(getattr(error, "problem", None) or getattr(error, "reason", None) or error)
    where = name if mark is None else f"{name}:{mark.line + 1}"
    lines = text.splitlines()
    line = lines[mark.line].strip() if mark is not None and mark.line < len(lines) else None
    if isinstance(error, ScannerError) and mark is not None and line:
        start = lines[mark.line][mark.column : mark.column + 1]
        if start == "@":
            return UserError(
                where, "a reference that starts with '@' must be quoted", line, 'Write "@a.b" or $@a.b'
            )
        if start == "\t":
            return UserError(where, "YAML must be indented by spaces", "a tab", "Replace the tab")
        if start and start in _RESERVED:
            return UserError(where, f"a string that starts with '{start}' must be quoted", line)
    if isinstance(error, ConstructorError) and mark is not None:
        position = mark.line, mark.column
        nodes = list(_nodes(yaml.compose(text, Loader=LOADER), set()))
        if (key := _given_twice(nodes, position)) is not None:
            rule = f"the key '{key}' must be given once"
            return UserError(where, rule, f"it again in '{line}'", "Keep one of them")
        if any(_start(node) == position and node.tag not in LOADER.yaml_constructors for node in nodes):
            rule = "a config must contain plain data, without YAML tags"
            return UserError(where, rule, line, "Remove the tag")
    return UserError(where, "must be valid YAML", Reason(problem + (f" in: {line}" if line else "")))


def _nodes(node: yaml.Node | None, seen: set[int]) -> Iterator[yaml.Node]:
    """A node and all below it; an anchor may make it a part of itself."""
    if node is None or id(node) in seen:
        return
    seen.add(id(node))
    yield node
    if isinstance(node, yaml.CollectionNode):
        for part in node.value:
            for child in part if isinstance(part, tuple) else (part,):
                yield from _nodes(child, seen)


def _start(node: yaml.Node) -> tuple[int, int]:
    return node.start_mark.line, node.start_mark.column


def _given_twice(nodes: Iterable[yaml.Node], position: tuple[int, int]) -> str | None:
    """The key at a position, if its mapping has it before too."""
    for node in nodes:
        if isinstance(node, yaml.MappingNode):
            keys = [key for key, _ in node.value if isinstance(key, yaml.ScalarNode)]
            for number, key in enumerate(keys):
                if _start(key) == position and key.value in [other.value for other in keys[:number]]:
                    return str(key.value)
    return None


def _value_error(error: OmegaConfBaseException, name: str) -> UserError:
    where = f"{name} {error.full_key}" if getattr(error, "full_key", None) else name
    first = str(error).splitlines()[0]
    return UserError(where, "cannot be read", Reason(first), r"A literal ${ is written \${")
