"""The process of a job: when it starts, which file its output goes to, and with which process it ends."""

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Mapping
from multiprocessing import parent_process
from pathlib import Path
from typing import Any

import torch

from polytask._files import lock
from polytask.compare import _command
from polytask.compare._job import Job
from polytask.compare._outcome import Outcome
from polytask.config._read import read_file


def work(job: Job) -> None:
    """Do a job, leave its outcome, and end the process.

    Args:
        job: What to do.
    """
    try:
        # Held back since before this process began.
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})
        threading.Thread(target=_end_with_parent, daemon=True).start()
        _wait_for_others(job.run)
        job.log.parent.mkdir(parents=True, exist_ok=True)
        if job.is_done:
            # By the process that was waited for.
            Outcome("done").write(job.outcome)
            sys.exit(0)
        _write_output_to(job.log)
    except KeyboardInterrupt:
        sys.exit(130)
    sys.exit(_in_new_python(job) if _starts_processes(job.config) else _command.perform(job))


def _starts_processes(config: Path) -> bool:
    """Whether Lightning starts a process for each device, by the command of the process that it is in."""
    if not config.exists():
        return False
    trainer = read_file(config).values.get("trainer")
    return isinstance(trainer, Mapping) and has_several_devices(trainer, torch.cuda.device_count())


def has_several_devices(trainer: Mapping[str, Any], gpus: int) -> bool:
    """Whether a trainer may use several devices.

    Args:
        trainer: The config's ``trainer``.
        gpus: How many GPUs this host has.

    Example:
        >>> has_several_devices({"accelerator": "cpu"}, 8), has_several_devices({"devices": 2}, 0)
        (False, True)
    """
    devices = trainer.get("devices", "auto")
    if str(trainer.get("num_nodes", 1)) != "1":
        return True
    if isinstance(devices, list):
        return len(devices) > 1
    if str(devices) in ("auto", "-1"):
        return trainer.get("accelerator", "auto") in ("auto", "gpu", "cuda") and gpus > 1
    return str(devices) != "1"


def _in_new_python(job: Job) -> int:
    """Do a job in a Python whose command can be repeated; its exit code."""
    command = [sys.executable, "-m", "polytask.compare._command", job.dump()]
    # A terminal sends Ctrl-C to both; the handler is this process's alone.
    signal.signal(signal.SIGINT, lambda number, frame: None)
    process = subprocess.Popen(command, stdin=subprocess.PIPE)
    signal.signal(signal.SIGTERM, lambda number, frame: process.terminate())
    return process.wait()


def _write_output_to(log: Path) -> None:
    handle = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o644)
    os.dup2(handle, 1)
    os.dup2(handle, 2)
    os.close(handle)


def _wait_for_others(run: Path) -> None:
    """Lock the run for as long as this process lives.

    The runs of a comparison that was killed on another host end a moment after the next one began.
    """
    run.parent.mkdir(parents=True, exist_ok=True)
    # Never closed: the system unlocks it, however the process ends.
    lock(run.with_name(f".{run.name}-lock"), wait=True)


def _end_with_parent() -> None:
    """The runs of a comparison that was killed must not continue, since the next one resumes them."""
    parent = parent_process()
    assert parent is not None
    parent.join()
    os.kill(os.getpid(), signal.SIGKILL)
