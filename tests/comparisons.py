"""How two comparisons are compared with each other, and how one is killed."""

import csv
import multiprocessing
import os
import signal
from collections.abc import Callable
from dataclasses import dataclass
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


@dataclass
class Killing:
    """A report that kills its own process at one of its lines."""

    lines: int

    def __call__(self, line: str) -> None:
        self.lines -= 1
        if self.lines == 0:
            os.kill(os.getpid(), signal.SIGKILL)


def kill(lines: int, work: Callable[..., None], *given: Any) -> int | None:
    """Do this in a process of its own, which is killed after a number of lines of its report."""
    process = begun(work, *given, Killing(lines))
    process.join()
    return process.exitcode


def kill_at(file: Path, work: Callable[..., None], *given: Any) -> int | None:
    """Do this in a process of its own, which is killed as soon as the file exists."""
    process = begun(work, *given, [].append)
    while not file.exists() and process.is_alive():
        process.join(0.01)
    process.kill()
    process.join()
    return process.exitcode


def note_mask_for(job: Any) -> None:
    """Write where a job's run would be whether this process blocks Ctrl-C."""
    note_mask(job.run)


def note_mask(file: Path) -> None:
    """Write whether this process blocks Ctrl-C."""
    file.write_text(str(signal.SIGINT in signal.pthread_sigmask(signal.SIG_BLOCK, ())))


def begun(work: Callable[..., None], *given: Any) -> BaseProcess:
    process = multiprocessing.get_context("forkserver").Process(target=work, args=given)
    process.start()
    return process
