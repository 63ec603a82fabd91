"""What the process of a job does: train or test one run, note its cost, and leave an `Outcome`.

The process is a copy of one that has imported everything. If Lightning starts a process for each device,
however, it is a new Python, which runs ``python -m polytask.compare._command``: Lightning repeats the command
of the process that it is in.
"""

import json
import os
import resource
import shutil
import signal
import sys
import threading
import time
from collections.abc import Sequence
from pathlib import Path

import torch
from pytorch_lightning.utilities.exceptions import SIGTERMException

from polytask._errors import Reason, RunError, UserError
from polytask._files import write_text
from polytask.compare._job import TESTED, Job
from polytask.compare._names import COST
from polytask.compare._outcome import Outcome
from polytask.experiment._evaluate import evaluate
from polytask.experiment._fit import fit
from polytask.experiment._processes import is_first_process
from polytask.experiment._quiet import quiet_libraries
from polytask.experiment._reporter import Silent
from polytask.runs import Run
from polytask.runs._checkpoints import read_checkpoint
from polytask.runs._lookup import Selection

_SESSION = "session.json"


def perform(job: Job) -> int:
    """Do a job, and write its outcome.

    What `polytask fit --quiet` would print goes to this process's output.

    Args:
        job: What to do.

    Returns:
        The exit code of the process.

    Raises:
        BaseException: What else than an error of polytask ended it, once the outcome is written.
    """
    quiet_libraries()
    torch.set_num_threads(job.threads)
    try:
        _fit(job) if job.command == "fit" else _test(job)
    except SIGTERMException as stop:
        # The checkpoint to resume from is written.
        _leave(job, Outcome("interrupted", found=f"exit code {stop.code}"))
        raise
    except (UserError, RunError) as error:
        _leave(job, Outcome.of(error))
        sys.stderr.write(f"error: {' '.join(str(error).split())}\n")
        return 2 if isinstance(error, UserError) else 1
    except BaseException as error:
        _leave(job, Outcome.of(error))
        raise
    _leave(job, Outcome("done"))
    if is_first_process():
        sys.stdout.write(f"run: {job.run}\n")
    return 0


def _leave(job: Job, outcome: Outcome) -> None:
    if is_first_process():
        outcome.write(job.outcome)


def _fit(job: Job) -> None:
    """Train, or resume from the last checkpoint that a killed process left."""
    earlier = earlier_seconds(job.run)
    # A run that is resumed has a config of its own.
    files = [job.config] if earlier is None else []
    named = Selection(files, allow=job.allow, run_dir=job.run)
    if not is_first_process():
        fit(named, Silent(), resume=earlier is not None)
        return
    if earlier is None:
        shutil.rmtree(job.run, ignore_errors=True)
    # Next to the run's folder: a new run's folder must be empty.
    session, start = session_file(job.run), time.time()
    _write(session, {"earlier": earlier or 0.0, "start": start})
    fit(named, Silent(), resume=earlier is not None)
    seconds = (earlier or 0.0) + time.time() - start
    _write(job.run / COST, {"seconds": seconds, "peak_memory_mb": _peak_memory()})
    session.unlink()


def _test(job: Job) -> None:
    evaluate(Selection(run_dir=job.run, allow=job.allow, checkpoint="last"), "test", Silent())
    if is_first_process():
        _write(job.run / TESTED, {"time": time.time()})


def session_file(run: Path) -> Path:
    """The file that says when a training began and how long it took before that.

    Args:
        run: The run's folder.
    """
    return run.with_name(f".{run.name}-{_SESSION}")


def earlier_seconds(run: Path) -> float | None:
    """The time behind a run's last checkpoint; None if there is nothing to resume.

    Args:
        run: The run's folder.
    """
    last, session = Run(run).checkpoint("last"), session_file(run)
    if not last.exists() or not session.exists():
        return None
    try:
        read_checkpoint(last)
    except UserError:
        # A process that was killed while it wrote leaves half a file.
        return None
    noted = _read(session, run, ("earlier", "start"))
    return noted["earlier"] + max(0.0, last.stat().st_mtime - noted["start"])


def read_cost(run: Path) -> dict[str, float]:
    """A run's time and memory, ``seconds`` and ``peak_memory_mb``.

    Args:
        run: The run's folder.

    Raises:
        UserError: If the file that has them is damaged.
    """
    return _read(run / COST, run, ("seconds", "peak_memory_mb"))


def _peak_memory() -> float:
    """MiB: of the device if one was used, else of the process."""
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
        rule, fix = f"must contain {' and '.join(names)}", f"Delete it and {run} to train again"
        raise UserError(str(file), rule, Reason.of(error), fix) from error


def _end_with_input() -> None:
    """A new Python ends with the process that started it, which holds the other end of its input."""
    os.read(0, 1)
    os.kill(os.getpid(), signal.SIGKILL)


if __name__ == "__main__":
    if is_first_process():
        threading.Thread(target=_end_with_input, daemon=True).start()
    sys.exit(perform(Job.parse(sys.argv[1])))
