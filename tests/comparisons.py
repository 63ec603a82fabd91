"""What two comparisons are held against each other by, and how one is killed."""

import csv
import multiprocessing
from collections.abc import Callable
from pathlib import Path
from typing import Any

from polytask.compare import Comparison, Launcher, Search, compare, read_results, tune

COSTS = ("seconds", "peak_memory_mb")


def rows(folder: Path) -> list[dict[str, str]]:
    with (folder / "table.csv").open() as file:
        return [
            {key: value for key, value in row.items() if key not in COSTS} for row in csv.DictReader(file)
        ]


def numbers(folder: Path) -> list[dict[str, object]]:
    return [
        {key: value for key, value in vars(one).items() if key not in COSTS} for one in read_results(folder)
    ]


def comparing(
    given: dict[str, Any], launcher: type[Launcher], folder: str, report: Callable[[str], None]
) -> None:
    compare(Comparison(["config.yaml"], **given), folder, launcher(2), report)


def searching(given: dict[str, Any], folder: str, report: Callable[[str], None]) -> None:
    tune(Search(["config.yaml"], **given), folder, report)


def kill(lines: int, work: Callable[..., None], *given: Any) -> int | None:
    """Do this in a process of its own, which is killed after so many lines of its report."""
    context = multiprocessing.get_context("forkserver")
    receiver, sender = context.Pipe(duplex=False)
    process = context.Process(target=work, args=(*given, sender.send))
    process.start()
    sender.close()
    for _ in range(lines):
        receiver.recv()
    process.kill()
    process.join()
    return process.exitcode
