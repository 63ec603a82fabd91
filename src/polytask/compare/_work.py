"""One run of a comparison in a process of its own: trained, tested, and its cost noted."""

import json
import os
import resource
import shutil
import signal
import sys
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass
from multiprocessing import parent_process
from pathlib import Path
from typing import Literal

import torch

from polytask._errors import UserError, one_line
from polytask._files import lock, write_text
from polytask.cli import main
from polytask.compare._names import COST
from polytask.runs import Run
from polytask.runs._checkpoints import read_checkpoint

_TESTED = "tested.json"
_SESSION = "session.json"


@dataclass(frozen=True)
class Job:
    """A command for one run.

    Attributes:
        command: ``fit`` or ``test``.
        run: The run's folder.
        config: The run's config file.
        log: Where the command's output goes.
        allow: Names that the config may use besides the known kinds.
        threads: How many threads torch may use.
        gpus: How many GPUs its trainer takes where there are some.
        needs_gpus: Whether it cannot do without.
    """

    command: Literal["fit", "test"]
    run: Path
    config: Path
    log: Path
    allow: tuple[str, ...] = ()
    threads: int = 1
    gpus: int = 0
    needs_gpus: bool = False

    @property
    def name(self) -> str:
        """The run's name."""
        return self.run.name

    @property
    def broken(self) -> Path:
        """A file that tells that the command broke down, where it may."""
        return self.log.with_suffix(".broken")

    @property
    def is_done(self) -> bool:
        """Whether the command ended well before."""
        return (self.run / (COST if self.command == "fit" else _TESTED)).exists()


def read_cost(run: Path) -> dict[str, float]:
    """A run's time and memory, ``seconds`` and ``peak_memory_mb``.

    Args:
        run: The run's folder.

    Raises:
        UserError: Where they are not noted there.
    """
    return _read(run / COST, run, ("seconds", "peak_memory_mb"))


def work(job: Job) -> None:
    """Do a job, and end the process with the command's exit code.

    Args:
        job: What to do.
    """
    try:
        # Held back since before this process began.
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})
        threading.Thread(target=_end_with_parent, daemon=True).start()
        _wait_for_others(job.run)
        if job.is_done:
            # By the process that was waited for.
            sys.exit(0)
        _write_output_to(job.log)
    except KeyboardInterrupt:
        sys.exit(130)
    torch.set_num_threads(job.threads)
    options = [
        "--run-dir",
        str(job.run),
        "--quiet",
        *(word for name in job.allow for word in ("--allow", name)),
    ]
    sys.exit(_fit(job, options) if job.command == "fit" else _test(job, options))


def _fit(job: Job, options: list[str]) -> int:
    """Train, or go on from the last checkpoint that a killed process left."""
    earlier = _earlier_seconds(job.run)
    if earlier is None:
        shutil.rmtree(job.run, ignore_errors=True)
        words = ["fit", "--config", str(job.config)]
    else:
        words = ["fit", "--resume"]
    # Beside the run's folder: a new run's must be empty.
    session, start = _session(job.run), time.time()
    _write(session, {"earlier": earlier or 0.0, "start": start})
    code = _command([*words, *options])
    if code == 0:
        seconds = (earlier or 0.0) + time.time() - start
        _write(job.run / COST, {"seconds": seconds, "peak_memory_mb": _peak_memory()})
        session.unlink()
    return code


def _test(job: Job, options: list[str]) -> int:
    code = _command(["test", "--ckpt", "last", *options])
    if code == 0:
        _write(job.run / _TESTED, {"time": time.time()})
    return code


def _command(words: list[str]) -> int:
    # Lightning starts the processes of other devices with the words that it finds here.
    sys.argv[1:] = words
    return main(words)


def _session(run: Path) -> Path:
    return run.with_name(f".{run.name}-{_SESSION}")


def _earlier_seconds(run: Path) -> float | None:
    """The time behind a run's last checkpoint; None where there is nothing to go on with."""
    last, session = Run(run).checkpoint("last"), _session(run)
    if not last.exists() or not session.exists():
        return None
    try:
        read_checkpoint(last)
    except UserError:
        # A process that was killed while it wrote leaves half a file.
        return None
    noted = _read(session, run, ("earlier", "start"))
    return noted["earlier"] + max(0.0, last.stat().st_mtime - noted["start"])


def _peak_memory() -> float:
    """MiB: of the device where one was used, else of the process."""
    if torch.cuda.is_available() and torch.cuda.max_memory_allocated():
        return torch.cuda.max_memory_allocated() / 2**20
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (2**20 if sys.platform == "darwin" else 2**10)


def _write(file: Path, values: dict[str, float]) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    write_text(file, json.dumps(values))


def _read(file: Path, run: Path, names: Sequence[str]) -> dict[str, float]:
    try:
        values = json.loads(file.read_text())
        return {name: float(values[name]) for name in names}
    except (OSError, ValueError, TypeError, KeyError) as error:
        found = one_line(error)
        raise UserError(str(file), "is damaged", found, f"Delete it and {run} to train again") from error


def _write_output_to(log: Path) -> None:
    log.parent.mkdir(parents=True, exist_ok=True)
    handle = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o644)
    os.dup2(handle, 1)
    os.dup2(handle, 2)
    os.close(handle)


def _wait_for_others(run: Path) -> None:
    """Hold the run for as long as this process lives.

    What a killed comparison left on another host ends a moment after the next one began.
    """
    run.parent.mkdir(parents=True, exist_ok=True)
    # Never closed: the system lets go of it, however the process ends.
    lock(run.with_name(f".{run.name}-lock"), wait=True)


def _end_with_parent() -> None:
    """A comparison that was killed must not go on in its runs, which the next one continues."""
    parent = parent_process()
    assert parent is not None
    parent.join()
    os.kill(os.getpid(), signal.SIGKILL)
