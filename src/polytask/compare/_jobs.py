"""Jobs that are not done yet, in order, by a launcher."""

from collections.abc import Callable, Sequence
from pathlib import Path

from polytask._errors import RunError, UserError
from polytask.compare._launcher import Ended, Launcher
from polytask.compare._work import Job

Report = Callable[[str], None]


def run_jobs(
    jobs: Sequence[Job],
    launcher: Launcher,
    report: Report,
    may_fail: bool = False,
    check: Callable[[Job], object] = lambda job: None,
) -> set[str]:
    """Do what is not done yet.

    Args:
        jobs: The jobs, in order.
        launcher: What runs them.
        report: Told a line for each job that ended.
        may_fail: Whether a run that breaks down (a loss that is not finite, say) is passed over.
        check: Called with each job that is done, as soon as it is.

    Returns:
        The names of the runs that broke down.

    Raises:
        UserError: Where a config cannot be used.
        RunError: Where a run breaks down and may not; the others that run already are finished first, and
            so they are where ``check`` raises.
    """
    failed = {job.name for job in jobs if may_fail and job.broken.exists()}
    left = [job for job in jobs if not job.is_done and job.name not in failed]
    found = (_found_by(check, job) for job in jobs if job.is_done)
    done, first = len(jobs) - len(left), next((error for error in found if error is not None), None)
    try:
        while launcher.running or (left and first is None):
            while left and launcher.running < launcher.at_once and first is None:
                launcher.start(left.pop(0))
            for ended in launcher.ended():
                done, job = done + 1, ended.job
                if ended.code == 0:
                    report(f"{done}/{len(jobs)} {job.command} {job.name}")
                    first = first or _found_by(check, job)
                elif may_fail and ended.code == 1:
                    job.broken.touch()
                    failed.add(job.name)
                    report(f"{done}/{len(jobs)} {job.command} {job.name} broke down: {last_line(job.log)}")
                else:
                    first = first or failure(ended)
    finally:
        launcher.stop()
    if first is not None:
        raise first
    return failed


def _found_by(check: Callable[[Job], object], job: Job) -> UserError | RunError | None:
    try:
        check(job)
    except (UserError, RunError) as error:
        return error
    return None


def failure(ended: Ended) -> UserError | RunError:
    """Why a command failed, as an error.

    Args:
        ended: What failed.
    """
    job, code, why = ended
    kind = UserError if code == 2 else RunError
    found = why or last_line(job.log).removeprefix("error: ") or f"exit code {code}"
    return kind(f"run {job.name}", f"polytask {job.command} failed", found, f"See {job.log}")


def last_line(log: Path) -> str:
    """The last line of a command's output.

    Args:
        log: Where the output went.
    """
    lines = log.read_text(errors="replace").split("\n") if log.exists() else []
    return next((line.strip() for line in reversed(lines) if line.strip()), "")
