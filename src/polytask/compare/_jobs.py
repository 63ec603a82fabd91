"""Several jobs at a time, each in a process of its own."""

import multiprocessing
from collections.abc import Callable, Sequence
from multiprocessing.connection import wait
from multiprocessing.context import ForkServerProcess
from pathlib import Path

from polytask._errors import RunError, UserError
from polytask.compare._work import Job, work

Report = Callable[[str], None]


def run_jobs(jobs: Sequence[Job], at_once: int, report: Report, may_fail: bool = False) -> set[str]:
    """Do what is not done yet.

    Args:
        jobs: The jobs, in order.
        at_once: How many processes at a time.
        report: Told a line for each job that ended.
        may_fail: Whether a run that breaks down (a loss that is not finite, say) is passed over.

    Returns:
        The names of the runs that broke down.

    Raises:
        UserError: Where a config cannot be used.
        RunError: Where a run breaks down and may not; the others that run already are finished first.
    """
    failed = {job.name for job in jobs if may_fail and job.broken.exists()}
    left = [job for job in jobs if not job.is_done and job.name not in failed]
    done, first = len(jobs) - len(left), None
    running: list[tuple[Job, ForkServerProcess]] = []
    try:
        while running or (left and first is None):
            while left and len(running) < at_once and first is None:
                job = left.pop(0)
                running.append((job, start(job)))
            wait([process.sentinel for _, process in running])
            for job, process in [one for one in running if not one[1].is_alive()]:
                running.remove((job, process))
                process.join()
                done += 1
                if process.exitcode == 0:
                    report(f"{done}/{len(jobs)} {job.command} {job.name}")
                elif may_fail and process.exitcode == 1:
                    job.broken.touch()
                    failed.add(job.name)
                    report(f"{done}/{len(jobs)} {job.command} {job.name} broke down: {last_line(job.log)}")
                else:
                    first = first or failure(job, process.exitcode)
    finally:
        # At Ctrl-C they got the signal too, and write a checkpoint.
        for _, process in running:
            process.join()
    if first is not None:
        raise first
    return failed


def start(job: Job) -> ForkServerProcess:
    """Begin a job in a process of its own.

    Args:
        job: The job.
    """
    context = multiprocessing.get_context("forkserver")
    # Imported once; every process begins as a copy.
    context.set_forkserver_preload(["polytask.commands", "polytask.compare._work", "torch.utils.tensorboard"])
    process = context.Process(target=work, args=(job,))
    process.start()
    return process


def failure(job: Job, code: int | None) -> UserError | RunError:
    """Why a command failed, as an error.

    Args:
        job: What failed.
        code: The process's exit code.
    """
    """Why a command failed, as an error.

    Args:
        job: What failed.
        code: The process's exit code.
    """
    kind = UserError if code == 2 else RunError
    found = last_line(job.log).removeprefix("error: ") or f"exit code {code}"
    return kind(f"run {job.name}", f"polytask {job.command} failed", found, f"See {job.log}")


def last_line(log: Path) -> str:
    """The last line of a command's output.

    Args:
        log: Where the output went.
    """
    lines = log.read_text(errors="replace").split("\n") if log.exists() else []
    return next((line.strip() for line in reversed(lines) if line.strip()), "")
