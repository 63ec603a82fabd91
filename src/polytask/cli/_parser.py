"""The arguments of all commands."""

import argparse
import os
from collections.abc import Sequence
from pathlib import Path
from typing import NoReturn

from polytask._errors import UserError, hint
from polytask._version import __version__
from polytask.cli import _compare_command, _group_command, _report_command, _tune_command

COMMANDS = {
    "fit": "train, and keep the best and the last checkpoint",
    "validate": "evaluate a checkpoint on the validation data",
    "test": "evaluate a checkpoint on the test data",
    "predict": "write a checkpoint's predictions",
    "check": "list every problem of a config, before any data is read",
    "show": "print the resolved config",
    "compare": "train several methods and baselines, and say which differences are more than noise",
    "tune": "search for better values of any config keys",
    "group": "propose which tasks to train together, from a run's affinities",
    "report": "write one HTML page about runs or a comparison",
    "methods": "list all methods that balance the tasks, and when to choose which",
    "init": "write a small project that can be trained at once",
}
# Commands whose arguments and work are in a module of their own.
MODULES = {
    "compare": _compare_command,
    "tune": _tune_command,
    "group": _group_command,
    "report": _report_command,
}
RUNS = ("fit", "validate", "test", "predict")
_WITHOUT_CONFIG = ("methods", "group", "report")
# Positional arguments, which argparse ends at the first option.
_POSITIONAL = ("arguments", "paths")


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
        if name in MODULES:
            MODULES[name].add(command)
        if name in RUNS:
            _add_run(command)
        if name == "fit":
            command.add_argument(
                "--resume", action="store_true", help="continue the newest run with this config"
            )
        if name == "predict":
            command.add_argument(
                "--with-targets", action="store_true", help="write the targets next to the predictions"
            )
        command.add_argument("--debug", action="store_true", help="show the traceback of an error")
    completion = commands.add_parser("completion", help="print a completion script for a shell")
    completion.add_argument("shell", choices=("bash", "zsh", "tcsh"))
    completion.add_argument("--debug", action="store_true", help=argparse.SUPPRESS)
    return top


def _add_config(command: argparse.ArgumentParser) -> None:
    command.add_argument(
        "arguments",
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
    """The options of a command; files and overrides may come before, between and after them.

    Args:
        arguments: The arguments after ``polytask``.

    Raises:
        UserError: If a command or an option is unknown, with the nearest one.
    """
    commands = [*COMMANDS, "completion"]
    for command in arguments[:1]:
        if not command.startswith("-") and command not in commands:
            fix = hint(command, commands, "Commands")
            raise UserError("polytask", f"unknown command '{command}'", None, fix)
    options, rest = parser().parse_known_args(arguments)
    positional = [name for name in _POSITIONAL if hasattr(options, name)]
    for argument in rest:
        if argument.startswith("-") or not positional:
            known = [
                f"--{name.replace('_', '-')}"
                for name in vars(options)
                if name not in (*_POSITIONAL, "command")
            ]
            where, fix = f"polytask {options.command}", hint(argument, known, "Options")
            raise UserError(where, f"unknown option '{argument}'", None, fix)
        getattr(options, positional[0]).append(argument)
    if hasattr(options, "arguments"):
        files = [one for one in options.arguments if _is_path(one)]
        options.overrides = [one for one in options.arguments if one not in files]
        options.config += files
        if options.seed is not None:
            options.overrides.append(f"seed={options.seed}")
        if options.project is not None and options.config:
            options.overrides.append(f"project={options.project.resolve()}")
    return options


def _is_path(argument: str) -> bool:
    """Whether an argument is a config file's path, which may contain an equals sign as an override does."""
    key, equals, _ = argument.partition("=")
    if not equals or "/" in key:
        return True
    return argument.endswith((".yaml", ".yml")) and os.path.isfile(argument)
