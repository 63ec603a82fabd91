"""``polytask compare``: methods, single-task models and the tuned plain sum on one config."""

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from polytask._errors import RunError, UserError

if TYPE_CHECKING:
    from rich.console import Console

    from polytask.compare import Table


def add(command: argparse.ArgumentParser) -> None:
    """Add the options.

    Args:
        command: The subcommand's parser, which has those of a config.
    """
    command.add_argument(
        "--methods",
        metavar="NAME",
        action="extend",
        nargs="+",
        help="weightings as in `polytask methods`, or YAML files of overrides",
    )
    command.add_argument(
        "--architectures",
        metavar="FILE",
        action="extend",
        nargs="+",
        help="YAML files of overrides; `base` is the config's own model",
    )
    command.add_argument("--seeds", type=int, default=3, metavar="N", help="seeds for each, default 3")
    command.add_argument("--single-task", action="store_true", help="also train a model for each task")
    command.add_argument(
        "--trials",
        type=int,
        default=1,
        metavar="N",
        help="settings tried for each, default 1: those of the config",
    )
    command.add_argument(
        "--space",
        type=Path,
        metavar="FILE",
        help="what is tuned, a YAML file; by default the learning rate",
    )
    add_direction(command)
    command.add_argument(
        "--launcher",
        choices=("processes", "ray"),
        default="processes",
        help="where runs are trained: processes on this host, or a Ray cluster",
    )
    command.add_argument(
        "--jobs",
        type=int,
        metavar="N",
        help="runs at a time, default 1; with ray as many as the cluster has CPUs",
    )
    command.add_argument("--dir", type=Path, metavar="DIR", help="the comparison's folder")
    command.add_argument(
        "--quiet", action="store_true", help="print the comparison's folder and nothing else"
    )


def run(options: argparse.Namespace) -> None:
    """Run a comparison, and print its table.

    Args:
        options: The parsed command line.

    Raises:
        UserError: If the options or the config cannot be used.
        RunError: If runs failed; the table of the others is printed first.
    """
    from polytask._console import plain_console
    from polytask.compare import Comparison, Processes, RayCluster, compare
    from polytask.config._read import read_file
    from polytask.experiment._quiet import quiet_libraries
    from polytask.runs._lookup import project_name

    quiet_libraries()
    if not options.config:
        fix = "Write it before the names of --methods: polytask compare config.yaml --methods uw"
        raise UserError("polytask compare", "a config is required", "none", fix)
    launcher = {"processes": Processes, "ray": RayCluster}[options.launcher](options.jobs)
    console = plain_console(options.quiet)
    comparison = Comparison(
        options.config,
        options.methods or (),
        options.architectures or ("base",),
        options.seeds,
        options.trials,
        options.single_task,
        None if options.space is None else read_file(options.space).values,
        directions(options.direction or ()),
        options.overrides,
        options.allow,
    )
    folder = options.dir or Path("comparisons") / project_name(comparison.config, options.config)
    table = compare(comparison, folder, launcher, console.print)
    _show(table, console)
    plain_console().print(f"comparison: {folder}")
    if left_out := table.remarks.left_out:
        raise RunError("polytask compare", "every row must have a result", f"none for {', '.join(left_out)}")


def add_direction(command: argparse.ArgumentParser) -> None:
    """Add the option that `directions` reads.

    Args:
        command: The subcommand's parser.
    """
    command.add_argument(
        "--direction",
        metavar="TASK/METRIC=max|min",
        action="extend",
        nargs="+",
        help="for metrics that do not say which direction is better",
    )


def directions(given: list[str] | tuple[str, ...]) -> dict[str, str]:
    """``max`` or ``min`` by ``<task>/<Metric>``.

    Args:
        given: Strings such as ``digit/Accuracy=max``.

    Raises:
        UserError: If one has no equals sign.

    Example:
        >>> directions(["digit/Accuracy=max"])
        {'digit/Accuracy': 'max'}
    """
    for pair in given:
        if "=" not in pair:
            raise UserError("--direction", "must be <task>/<Metric>=max or <task>/<Metric>=min", repr(pair))
    return dict(pair.split("=", 1) for pair in given)


def _show(table: "Table", console: "Console") -> None:
    from rich import box
    from rich.table import Table as Shown

    if not console.is_terminal:
        console.print(table.markdown(), end="")
        return
    shown = Shown(*table.header(), box=box.SIMPLE)
    for row in table.rows:
        shown.add_row(*table.cells(row))
    console.print(shown)
    for line in [*table.notes(), *(f"{name}: {sentence}" for name, sentence in table.sentences())]:
        console.print(line)
