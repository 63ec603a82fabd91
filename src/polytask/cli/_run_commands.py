"""``polytask fit``, ``validate``, ``test``, ``predict`` and ``check``."""

import argparse
import math
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from polytask._errors import UserError

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

    from polytask.config import Config
    from polytask.runs._lookup import Selection


def check(config: "Config") -> int:
    """Print every problem of a config.

    Args:
        config: The config.

    Returns:
        0 if there is none, else 2.
    """
    from polytask.experiment._problems import find_problems
    from polytask.experiment._quiet import quiet_libraries

    quiet_libraries()
    problems = find_problems(config)
    for problem in problems:
        print(f"error: {' '.join(str(problem).split())}", file=sys.stderr)
    if problems:
        print(f"{len(problems)} problem{'s' * (len(problems) > 1)}", file=sys.stderr)
        return 2
    print("no problems")
    return 0


def run(options: argparse.Namespace) -> None:
    """Run ``fit``, ``validate``, ``test`` or ``predict``.

    Args:
        options: The parsed command line.

    Raises:
        UserError: If the options or the config cannot be used.
        RunError: If the run fails.
    """
    from polytask._console import plain_console
    from polytask.experiment._quiet import quiet_libraries
    from polytask.runs._lookup import Selection

    quiet_libraries()
    printed = Printed(plain_console(options.quiet))
    named = Selection(
        options.config, options.overrides, options.allow, options.project, options.ckpt, options.run_dir
    )
    if options.command == "fit":
        run_fit = _dry_run if options.dry_run else _fit
        result = run_fit(named, options, printed)
    elif options.command == "predict":
        result = _predict(named, options, printed)
    else:
        result = _evaluate(named, options, printed)
    # What scripts read is printed with --quiet too, but once, whatever the number of devices.
    if result is not None and printed.first:
        print(result)


def _fit(named: "Selection", options: argparse.Namespace, printed: "Printed") -> str | None:
    from polytask.experiment._fit import fit

    fitted = fit(named, printed, resume=options.resume)
    for stage in ("train", "val"):
        if any(key.startswith(f"{stage}/") for key in fitted.values):
            table = results_table(fitted.values, stage, fitted.tasks)
            if (epoch := fitted.epochs.get(stage)) != fitted.epochs.get("train") and epoch is not None:
                # An epoch without a validation leaves the values of an earlier one.
                table.columns[0].header = f"{stage}, epoch {epoch + 1}"
            printed.console.print(table)
    if fitted.skipped:
        reason = "no label, or a loss or gradient that was not finite"
        printed.console.print(f"{fitted.skipped} steps were skipped: {reason}")
    return f"run: {fitted.run}"


def _dry_run(named: "Selection", options: argparse.Namespace, printed: "Printed") -> str | None:
    from polytask.experiment._dry_run import dry_run

    if options.resume:
        raise UserError("--dry-run", "cannot be combined with --resume", None, "Leave one of them out")
    tried = dry_run(named, printed)
    printed.console.print(f"dry run: completed one batch of {', '.join(tried.stages)}")
    if tried.unlabelled:
        found = f"no label in the training batch for {', '.join(tried.unlabelled)}"
        printed.console.print(f"{found}: check adapters.batch.target_accessor, unless the labels are rare")
    return None


def _evaluate(named: "Selection", options: argparse.Namespace, printed: "Printed") -> str:
    from polytask.experiment._evaluate import evaluate

    stage: Literal["val", "test"] = "val" if options.command == "validate" else "test"
    found = evaluate(named, stage, printed, dry_run=options.dry_run)
    printed.console.print(results_table(found.values, stage, found.tasks))
    return f"run: {found.run}"


def _predict(named: "Selection", options: argparse.Namespace, printed: "Printed") -> str | None:
    from polytask.experiment._evaluate import predict

    folder = predict(named, printed, dry_run=options.dry_run, targets=options.with_targets)
    return None if options.dry_run else f"predictions: {folder}"


class Printed:
    """A `polytask.experiment._reporter.Reporter` that prints, in the first process of the command only.

    Args:
        console: Where.

    Attributes:
        console: As given; the progress of a training is shown there too.
        first: Whether this is the first process.
    """

    def __init__(self, console: "Console") -> None:
        self.console = console
        self.first = True

    def started(self, first: bool) -> None:
        """Print nothing from now on unless this is the first process."""
        self.first = first
        self.console.quiet = self.console.quiet or not first

    def resuming(self, run: Path, step: int, changed: Sequence[str]) -> None:
        """Print where the run continues, and what differs."""
        self.console.print(
            f"resuming {run} at step {step}: model, optimizer, scheduler, weighting, epoch, data order and "
            "random states"
        )
        if changed:
            self.console.print(f"changed since: {', '.join(changed)}")

    def without_effect(self, names: Sequence[str]) -> None:
        """Print what the checkpoint decides; a few of many names."""
        shown = ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")
        self.console.print(f"without effect, since the run has it from its checkpoint: {shown}")

    def finished(self, run: Path, reason: str, fix: str) -> None:
        """Print that there is nothing to do."""
        self.console.print(f"nothing to do: {reason}. {fix} to continue.")

    def loading(self, checkpoint: Path, differing: Sequence[str]) -> None:
        """Print which checkpoint is loaded, and what differs."""
        self.console.print(f"checkpoint: {checkpoint}")
        if differing:
            self.console.print(f"other than in its run: {', '.join(differing)}")

    def stopped(self, run: Path, signal: str, epoch: int, step: int) -> None:
        """Print how to resume."""
        self.console.print(
            f"stopped by {signal} in epoch {epoch + 1} after step {step}; "
            f"resume with: polytask fit --resume --run-dir {run}"
        )


def results_table(values: Mapping[str, float], stage: str, tasks: Sequence[str]) -> "Table":
    """The epoch values of a stage as a table of tasks and metrics.

    Args:
        values: Logged values by key.
        stage: ``train``, ``val`` or ``test``.
        tasks: Task names, in order.

    Example:
        >>> table = results_table({"test/loss/digit/epoch": 0.5, "test/digit/Accuracy/epoch": 0.9},
        ...                       "test", ["digit"])
        >>> [column.header for column in table.columns]
        ['test', 'loss', 'Accuracy']
    """
    from rich.table import Table

    cells: dict[str, dict[str, float]] = {task: {} for task in [*tasks, "total"]}
    for key, value in values.items():
        parts = key.split("/")
        if parts[0] != stage or parts[-1] != "epoch" or len(parts) not in (4, 5):
            continue
        # One of several loaders has its name after the stage.
        loader, (middle, last) = parts[1:-3], parts[-3:-1]
        task, column = (last, "loss") if middle == "loss" else (middle, last)
        cells.setdefault("/".join([*loader, task]), {})[column] = value
    columns = list(dict.fromkeys(["loss", *(column for row in cells.values() for column in row)]))
    table = Table(stage, *columns)
    for task, row in cells.items():
        if row:
            table.add_row(task, *(_shown(row[column]) if column in row else "" for column in columns))
    return table


def _shown(value: float) -> str:
    """A value, or a dash if it is undefined."""
    return "–" if math.isnan(value) else f"{value:.4f}"
