"""``polytask group``: which tasks to train together."""

import argparse
from pathlib import Path


def add(command: argparse.ArgumentParser) -> None:
    """Add the options.

    Args:
        command: The subcommand's parser.
    """
    command.add_argument(
        "--run", type=Path, required=True, metavar="RUN", help="a run that was trained with Affinity"
    )
    command.add_argument("--groups", type=int, required=True, metavar="K", help="maximum number of models")
    command.add_argument("--budget", type=int, metavar="N", help="maximum number of parameters of all models")
    command.add_argument(
        "--form", choices=("lookahead", "first_order"), help="default lookahead if it was recorded"
    )


def run(options: argparse.Namespace) -> None:
    """Print which tasks to train together.

    Args:
        options: The parsed command line.

    Raises:
        UserError: If the run's records cannot be used, or the tasks cannot be split into such groups.
    """
    from polytask._console import plain_console
    from polytask.diagnostics import group_tasks, read_affinity

    affinities = read_affinity(options.run, options.form)
    found = group_tasks(affinities, options.groups, options.budget)
    console = plain_console()
    for number, group in enumerate(found.groups, start=1):
        received = ", ".join(f"{task} {found.received[task]:+.2g}" for task in group)
        console.print(f"model {number}: {received}")
    search = "best of all splits" if found.exact else "greedy search"
    what = f"mean {affinities.form} affinity from the model's other tasks"
    console.print(f"{search}; {what}, over {affinities.records} steps")
    if found.parameters is not None:
        console.print(f"{found.parameters} parameters in all")
