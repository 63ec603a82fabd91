"""What two comparisons are held against each other by, and how one is killed."""

import csv
import multiprocessing
from collections.abc import Callable
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
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
    process, receiver = begun(work, *given)
    for _ in range(lines):
        receiver.recv()
    return killed(process)


def kill_at(file: Path, work: Callable[..., None], *given: Any) -> int | None:
    """Do this in a process of its own, which is killed as soon as there is such a file."""
    process, receiver = begun(work, *given)
    while not file.exists() and process.is_alive():
        while receiver.poll(0.01):
            receiver.recv()
    return killed(process)


def begun(work: Callable[..., None], *given: Any) -> tuple[BaseProcess, Connection]:
    context = multiprocessing.get_context("forkserver")
    receiver, sender = context.Pipe(duplex=False)
    process = context.Process(target=work, args=(*given, sender.send))
    process.start()
    sender.close()
    return process, receiver


def killed(process: BaseProcess) -> int | None:
    process.kill()
    process.join()
    return process.exitcode
