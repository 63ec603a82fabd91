"""The command line: parse, call, print, exit code."""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, NoReturn

from polytask._errors import RunError, UserError, hint
from polytask._lazy import preload
from polytask._lightning._interrupts import interrupts
from polytask._version import __version__
from polytask.cli import _compare, _group, _report, _tune

if TYPE_CHECKING:
    from polytask.config import Config

COMMANDS = {
    "fit": "train, and keep the best and the last checkpoint",
    "validate": "evaluate a checkpoint on the validation data",
    "test": "evaluate a checkpoint on the test data",
    "predict": "write a checkpoint's predictions",
    "check": "list every problem of a config, before any data is touched",
    "show": "print the resolved config",
    "compare": "train several methods and baselines, and say which differences are more than noise",
    "tune": "search for better values of any config keys",
    "group": "propose which tasks to train together, from a run's affinities",
    "report": "write one HTML page about runs or a comparison",
    "methods": "list all ways of balancing the tasks, and when to choose which",
    "init": "write a small project that trains as it stands",
}

# Commands whose words and work stand in a module of their own.
_IN_MODULES = {
    "compare": _compare,
    "tune": _tune,
    "group": _group,
    "report": _report,
}
_WITHOUT_CONFIG = ("methods", "group", "report")
# Lists of words that argparse ends at the first option.
_PLACES = ("words", "paths")


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        raise UserError(self.prog, message, None, f"See `{self.prog} --help`")


def parser() -> argparse.ArgumentParser:
    """The parser of all commands."""
    top = _Parser(prog="polytask", description="Train one PyTorch model on many tasks.", allow_abbrev=False)
    top.add_argument("--version", action="version", version=f"polytask {__version__}")
    commands = top.add_subparsers(dest="command", metavar="COMMAND", required=True, parser_class=_Parser)
    for name, text in COMMANDS.items():
        command = commands.add_parser(
            name, help=text, description=text.capitalize() + ".", allow_abbrev=False
        )
        if name == "init":
            command.add_argument("name", metavar="NAME", help="the project's folder, which must not exist")
        elif name not in _WITHOUT_CONFIG:
            _add_config(command)
        if name in _IN_MODULES:
            _IN_MODULES[name].add(command)
        if name in ("fit", "validate", "test", "predict"):
            _add_run(command)
        if name == "fit":
            command.add_argument(
                "--resume", action="store_true", help="continue the newest run with this config"
            )
        command.add_argument("--debug", action="store_true", help="show the traceback of an error")
    completion = commands.add_parser("completion", help="print a completion script for a shell")
    completion.add_argument("shell", choices=("bash", "zsh", "tcsh"))
    completion.add_argument("--debug", action="store_true", help=argparse.SUPPRESS)
    return top


def _add_config(command: argparse.ArgumentParser) -> None:
    command.add_argument(
        "words",
        nargs="*",
        metavar="FILE | key.sub=value",
        help="config files and overrides, merged left to right",
    )
    command.add_argument(
        "--config", action="append", default=[], metavar="FILE", help="a config file; repeatable"
    )
    command.add_argument(
        "--allow", action="append", default=[], metavar="NAME", help="let the config use this package or name"
    )
    command.add_argument(
        "--project", type=Path, metavar="DIR", help="the folder a checkpoint's modules come from"
    )
    command.add_argument("--seed", type=int, metavar="N", help="seed of all random numbers, default 0")


def _add_run(command: argparse.ArgumentParser) -> None:
    command.add_argument("--ckpt", metavar="best|last|PATH", help="load these weights")
    command.add_argument("--run-dir", type=Path, metavar="DIR", help="the run's folder, or a folder of runs")
    command.add_argument(
        "--dry-run", action="store_true", help="one batch of every stage; nothing is written"
    )
    command.add_argument("--quiet", action="store_true", help="print the run's folder and nothing else")


def parse(arguments: Sequence[str]) -> argparse.Namespace:
    """The options; words may stand before, between and after them.

    Raises:
        UserError: Where an option is unknown, with the nearest one.
    """
    top = parser()
    options, rest = top.parse_known_args(arguments)
    places = [place for place in _PLACES if hasattr(options, place)]
    for word in rest:
        if word.startswith("-") or not places:
            known = [
                f"--{name.replace('_', '-')}" for name in vars(options) if name not in (*_PLACES, "command")
            ]
            raise UserError(
                f"polytask {options.command}",
                f"no option is called '{word}'",
                None,
                hint(word, known, "Options"),
            )
        getattr(options, places[0]).append(word)
    if hasattr(options, "words"):
        # A path may have an equals sign too.
        files = [word for word in options.words if "=" not in word or Path(word).is_file()]
        options.overrides = [word for word in options.words if word not in files]
        options.config += files
        if options.seed is not None:
            options.overrides.append(f"seed={options.seed}")
        if options.project is not None and options.config:
            options.overrides.append(f"project={options.project.resolve()}")
    return options


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command.

    Args:
        arguments: The words after ``polytask``; those of the process by default.

    Returns:
        0; 1 for a run that failed; 2 for a user's mistake; 130 where it was interrupted without a checkpoint.
    """
    arguments = sys.argv[1:] if arguments is None else arguments
    debug = "--debug" in arguments
    if not debug:
        sys.excepthook = _one_line
    try:
        with interrupts():
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
    if options.command == "show":
        return _show(options)
    if options.command == "methods":
        return _methods()
    if options.command in _IN_MODULES:
        return int(_IN_MODULES[options.command].run(options))
    preload("pytorch_lightning")
    from polytask.experiment import _commands as commands

    if options.command == "check":
        return commands.check(read_config(options))
    return commands.run(options)


def read_config(options: argparse.Namespace) -> "Config":
    """The config that the options name.

    Raises:
        UserError: Where none is named, or it cannot be read.
    """
    from polytask.config import Config

    if not options.config:
        raise UserError(
            f"polytask {options.command}", "needs a config", "none", "Write for example config.yaml"
        )
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

    if folder.exists():
        raise UserError(f"polytask init {folder}", "the folder must not exist", None, "Choose another name")
    with as_file(files("polytask.cli") / "template") as template:
        try:
            shutil.copytree(template, folder, ignore=shutil.ignore_patterns("__pycache__"))
        except OSError as error:
            raise UserError(
                f"polytask init {folder}", "the folder cannot be written", error.strerror
            ) from error
    print(f"{folder}: train it with `polytask fit {folder}/config.yaml`")
    return 0


def _line(error: BaseException) -> str:
    return " ".join(str(error).split())


def _one_line(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> Any:
    print(f"error: {kind.__name__}: {_line(error)} (--debug shows the traceback)", file=sys.stderr)


if "__mp_main__" in sys.modules:
    # A spawned worker imports this module before it unpickles objects of the project's classes.
    from polytask.config import follow_parent

    follow_parent()
