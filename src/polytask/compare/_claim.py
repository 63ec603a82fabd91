"""The folder of a comparison or a search: whose it is, and that one process works in it."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf

from polytask._errors import UserError
from polytask._files import locked, write_text
from polytask.config import closest
from polytask.config._read import Plain, parse, read_file
from polytask.runs import CONFIG


@contextmanager
def claimed(
    folder: Path,
    name: str,
    definition: Plain,
    noun: str,
    free: Sequence[str] = (),
    growing: Sequence[str] = (),
) -> Iterator[None]:
    """Hold a folder, and note in it what it is for.

    Args:
        folder: A new folder, or one that was begun with the same definition.
        name: The file that holds the definition.
        definition: The definition, resolved.
        noun: What the folder is, for messages.
        free: Keys whose values may be others than before.
        growing: Keys of mappings to which names are added, and whose earlier ones stay.

    Raises:
        UserError: Where it is another one's, or another process works in it.
    """
    file = folder / name
    _make(folder, file, noun)
    taken = UserError(f"--dir {folder}", f"one process works in a {noun}", "another one")
    with locked(folder, taken):
        own = parse(_yaml(definition), name)
        if file.exists():
            earlier = read_file(file).values
            if found := [key for key in closest(earlier, own) if _matters(key, earlier, own, free, growing)]:
                rule, values = f"this folder is another {noun}'s", f"other values of {', '.join(found[:5])}"
                raise UserError(str(file), rule, values, "Name another --dir")
            own |= {key: {**earlier[key], **own[key]} for key in growing}
        write_text(file, _yaml(own))
        yield


def check_kept(run: Path, config: Mapping[Any, Any]) -> None:
    """Raise where a run was trained with another config: a method's file may have changed since.

    Args:
        run: The run's folder, or where it is going to be.
        config: What it is to be trained with.

    Raises:
        UserError: With the keys that differ.
    """
    kept = run / CONFIG
    if kept.exists() and (differing := closest(read_file(kept).values, config)):
        found = f"other values of {', '.join(differing[:5])}"
        fix = f"Name another --dir, or delete {run}"
        raise UserError(str(kept), "this run was trained with another config", found, fix)


def _make(folder: Path, file: Path, noun: str) -> None:
    try:
        if not file.exists() and folder.is_dir() and any(folder.iterdir()):
            rule = f"must be a {noun}, or a new folder"
            raise UserError(f"--dir {folder}", rule, None, "Name another one")
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"--dir {folder}", "the folder cannot be made", error.strerror) from error


def _matters(key: str, earlier: Plain, own: Plain, free: Sequence[str], growing: Sequence[str]) -> bool:
    top, *inner = key.split(".")
    if top in growing and inner:
        return inner[0] in earlier[top] and inner[0] in own[top]
    return top not in free


def _yaml(values: Plain) -> str:
    return OmegaConf.to_yaml(OmegaConf.create(values))
