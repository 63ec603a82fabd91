"""The command line: parse, call, print, exit code."""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any

from polytask._errors import Reason, RunError, UserError
from polytask._lazy import preload
from polytask.cli import _run_commands
from polytask.cli._notice import notice
from polytask.cli._parser import MODULES, parse, parser

if TYPE_CHECKING:
    from polytask.config import Config


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command.

    Args:
        arguments: The arguments after ``polytask``; those of the process by default.

    Returns:
        0; 1 if a run failed; 2 if the user has to change something; 130 if it was interrupted without a
        checkpoint.
    """
    arguments = sys.argv[1:] if arguments is None else arguments
    debug = "--debug" in arguments
    if not debug:
        sys.excepthook = _one_line
    try:
        return _run(parse(arguments))
    except (UserError, RunError) as error:
        if debug:
            raise
        print(f"error: {_line(error)}", file=sys.stderr)
        return 2 if isinstance(error, UserError) else 1
    except KeyboardInterrupt:
        if debug:
            raise
        print("error: interrupted", file=sys.stderr)
        return 130


def _run(options: argparse.Namespace) -> int:
    if options.command == "init":
        return _init(Path(options.name))
    if options.command == "completion":
        return _completion(options.shell)
    notice(options.command, quiet=getattr(options, "quiet", False))
    if options.command == "show":
        return _show(options)
    if options.command == "methods":
        return _methods()
    if options.command in MODULES:
        MODULES[options.command].run(options)
        return 0
    config = read_config(options) if options.command == "check" else None
    preload("pytorch_lightning")
    if config is not None:
        return _run_commands.check(config)
    _run_commands.run(options)
    return 0


def read_config(options: argparse.Namespace) -> "Config":
    """The config that the options name.

    Args:
        options: The parsed command line.

    Raises:
        UserError: If none is named, or it cannot be read.
    """
    from polytask.config import Config

    if not options.config:
        where, fix = f"polytask {options.command}", "Write for example config.yaml"
        raise UserError(where, "a config is required", "none", fix)
    return Config.read(options.config, options.overrides, allow=options.allow)


def _show(options: argparse.Namespace) -> int:
    from omegaconf import OmegaConf

    print(OmegaConf.to_yaml(OmegaConf.create(read_config(options).plain)), end="")
    return 0


def _methods() -> int:
    from rich import box
    from rich.console import Console
    from rich.table import Table

    from polytask.weighting._catalogue import header, lines, methods, words

    console, found = Console(), methods()
    if not console.is_terminal:
        print("\n".join(lines(found)))
        return 0
    table = Table(*header(), box=box.SIMPLE)
    for method in found:
        table.add_row(*words(method))
    console.print(table)
    return 0


def _completion(shell: str) -> int:
    import shtab

    print(shtab.complete(parser(), shell))
    return 0


def _init(folder: Path) -> int:
    import shutil
    from importlib.resources import as_file, files

    where = f"polytask init {folder}"
    if folder.exists():
        raise UserError(where, "the folder must not exist yet", None, "Choose another name")
    with as_file(files("polytask.cli") / "template") as template:
        try:
            shutil.copytree(template, folder, ignore=shutil.ignore_patterns("__pycache__"))
        except OSError as error:
            raise UserError(where, "the folder must be writable", Reason.said(error)) from error
    print(f"{folder}: created; train with `polytask fit {folder}/config.yaml`")
    return 0


def _line(error: BaseException) -> str:
    return " ".join(str(error).split())


def _one_line(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> Any:
    print(f"error: {kind.__name__}: {_line(error)} (--debug shows the traceback)", file=sys.stderr)


if "__mp_main__" in sys.modules:
    # A spawned worker imports this module before it unpickles objects of the project's classes.
    from polytask.config import follow_parent

    follow_parent()
