"""Runs the unfinished jobs, in order, by a launcher."""

from collections.abc import Callable, Sequence

from polytask._errors import RunError, UserError
from polytask.compare._job import Job
from polytask.compare._launcher import Ended, Launcher

Report = Callable[[str], None]


def run_jobs(
    jobs: Sequence[Job],
    launcher: Launcher,
    report: Report,
    may_fail: bool = False,
    check: Callable[[Job], object] = lambda job: None,
) -> dict[str, str]:
    """Run the unfinished jobs.

    Args:
        jobs: The jobs, in order.
        launcher: What runs them.
        report: Called with a line for each job that ended.
        may_fail: Whether a run that fails (for example with a loss that is not finite) is skipped.
        check: Called with each job that is done, as soon as it is.

    Returns:
        The names of the runs that failed, and why; the reason is empty for those that failed in an earlier
        call.

    Raises:
        UserError: If a config cannot be used.
        RunError: If a run fails and must not. The other jobs that run already are finished first, also if
            ``check`` raises.
    """
    failed = {job.name: "" for job in jobs if may_fail and job.broken.exists()}
    left = [job for job in jobs if not job.is_done and job.name not in failed]
    found = (_found_by(check, job) for job in jobs if job.is_done)
    done, first = len(jobs) - len(left), next((error for error in found if error is not None), None)
    try:
        while launcher.running or (left and first is None):
            while left and launcher.running < launcher.at_once and first is None:
                launcher.start(left.pop(0))
            for ended in launcher.ended():
                done, job, outcome = done + 1, ended.job, ended.outcome
                if outcome.status == "done":
                    report(f"{done}/{len(jobs)} {job.command} {job.name}")
                    first = first or _found_by(check, job)
                elif may_fail and outcome.is_run_error:
                    job.broken.touch()
                    failed[job.name] = str(outcome.error)
                    report(f"{done}/{len(jobs)} {job.command} {job.name} failed: {outcome.error}")
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
    """Why a job failed, as an error that names its run and its log.

    Args:
        ended: The job.
    """
    job, outcome = ended
    log = f"See {job.log}"
    if outcome.status == "failed":
        error = outcome.error
        fix = log if error.fix is None else f"{error.fix.rstrip('.')}. {log}"
        return error.at(f"run {job.name}: {error.where}", fix)
    how = outcome.found or outcome.status
    return RunError(f"run {job.name}", f"polytask {job.command} must run to its end", how, log)
