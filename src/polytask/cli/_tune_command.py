"""``polytask tune``: a search for better values of config keys."""

import argparse
from pathlib import Path

from polytask._errors import UserError
from polytask.cli._compare_command import add_direction, directions


def add(command: argparse.ArgumentParser) -> None:
    """Add the options.

    Args:
        command: The subcommand's parser, which has those of a config.
    """
    command.add_argument(
        "--space", type=Path, metavar="FILE", help="choices or a range for each config key, a YAML file"
    )
    command.add_argument("--trials", type=int, default=20, metavar="N", help="trials in all, default 20")
    command.add_argument(
        "--objective",
        action="extend",
        nargs="+",
        metavar="KEY",
        help="TASK/METRIC, TASK/loss or delta_m, the default; several for a Pareto front",
    )
    add_direction(command)
    command.add_argument("--prune", action="store_true", help="stop trials that are worse than the median")
    command.add_argument("--dir", type=Path, metavar="DIR", help="the search's folder")
    command.add_argument("--quiet", action="store_true", help="print the search's folder and nothing else")


def run(options: argparse.Namespace) -> None:
    """Run a search, and print the best trials.

    Args:
        options: The parsed command line.

    Raises:
        UserError: If the options or the config cannot be used.
        RunError: If every trial failed.
    """
    from polytask._console import plain_console
    from polytask.compare import Search, tune
    from polytask.compare._space import overrides
    from polytask.config._read import read_file
    from polytask.experiment._quiet import quiet_libraries
    from polytask.runs._lookup import project_name

    quiet_libraries()
    if not options.config:
        raise UserError("polytask tune", "a config is required", "none", "Write for example config.yaml")
    if options.space is None:
        raise UserError(
            "--space", "is required", "none", "Write a YAML file: a config key, then [choices] or a range"
        )
    console = plain_console(options.quiet)
    search = Search(
        options.config,
        read_file(options.space).values,
        options.trials,
        options.objective or (),
        options.prune,
        directions(options.direction or ()),
        options.overrides,
        options.allow,
    )
    folder = options.dir or Path("tuning") / project_name(search.config, options.config)
    for trial in tune(search, folder, console.print):
        values = ", ".join(f"{name}={value:.4g}" for name, value in trial.values.items())
        console.print(
            f"best: trial {trial.number} with {values}: {' '.join(overrides(trial.drawn)) or 'the config'}"
        )
    plain_console().print(f"tuning: {folder}")
