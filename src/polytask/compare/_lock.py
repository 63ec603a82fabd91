"""The folder of a comparison or a search: what it is for, and that only one process uses it."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf

from polytask import _files
from polytask._errors import Reason, UserError
from polytask.config import closest
from polytask.config._read import Plain, parse, read_file
from polytask.runs import CONFIG


@contextmanager
def locked_for(
    folder: Path,
    name: str,
    definition: Plain,
    noun: str,
    free: Sequence[str] = (),
    growing: Sequence[str] = (),
) -> Iterator[None]:
    """Lock a folder, and write into it what it is for.

    Args:
        folder: A new folder, or one that was begun with the same definition.
        name: The file that holds the definition.
        definition: The definition, resolved.
        noun: What the folder is, for messages.
        free: Keys whose values may differ from those before.
        growing: Keys of mappings to which names may be added; earlier names stay.

    Raises:
        UserError: If the folder has another definition, or another process uses it.
    """
    file = folder / name
    _create(folder, file, noun)
    with _files.locked(
        folder, UserError(f"--dir {folder}", f"only one process may use a {noun}", "another one")
    ):
        own = parse(_yaml(definition), name)
        if file.exists():
            earlier = read_file(file).values
            if found := [key for key in closest(earlier, own) if _matters(key, earlier, own, free, growing)]:
                rule = f"must be the {noun} that the folder was made for"
                values = f"other values of {', '.join(found[:5])}"
                raise UserError(str(file), rule, values, "Name another --dir")
            own |= {key: {**earlier[key], **own[key]} for key in growing}
        _files.write_text(file, _yaml(own))
        yield


def check_kept(run: Path, config: Mapping[Any, Any]) -> None:
    """Raise if a run was trained with another config: a method's file may have changed since.

    Args:
        run: The run's folder, which need not exist yet.
        config: The config that it is to be trained with.

    Raises:
        UserError: With the keys that differ.
    """
    kept = run / CONFIG
    if kept.exists() and (differing := closest(read_file(kept).values, config)):
        found = f"other values of {', '.join(differing[:5])}"
        fix = f"Name another --dir, or delete {run}"
        raise UserError(str(kept), "must be the config that the run is trained with now", found, fix)


def _create(folder: Path, file: Path, noun: str) -> None:
    try:
        if not file.exists() and folder.is_dir() and any(folder.iterdir()):
            rule = f"must be a {noun}, or a new folder"
            raise UserError(f"--dir {folder}", rule, None, "Name another one")
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"--dir {folder}", "the folder must be writable", Reason.said(error)) from error


def _matters(key: str, earlier: Plain, own: Plain, free: Sequence[str], growing: Sequence[str]) -> bool:
    top, *inner = key.split(".")
    if top in growing and inner:
        return inner[0] in earlier[top] and inner[0] in own[top]
    return top not in free


def _yaml(values: Plain) -> str:
    return OmegaConf.to_yaml(OmegaConf.create(values))
