"""Jobs as tasks of a Ray cluster."""

import os
import socket
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from polytask._errors import UserError, one_line
from polytask.compare._job import Job
from polytask.compare._launcher import Ended, Launcher, start
from polytask.compare._outcome import Outcome, read_outcome

_SECONDS = 0.2
_PATIENCE = 10.0
_SHARED = "the folder must be the same on all hosts"


class RayCluster(Launcher):
    """Each job in a process of its own, on a host of the cluster that ``RAY_ADDRESS`` names.

    Without an address, Ray is started on this host. A job gets as many CPUs as threads, and the GPUs that
    its trainer uses. The current folder and the comparison's must have the same path on all hosts, and the
    same version of polytask must be installed there. Ray's usage statistics are off unless
    ``RAY_USAGE_STATS_ENABLED`` is set.

    Args:
        jobs: How many at a time; if None one for each CPU of the cluster.

    Raises:
        UserError: If Ray is not installed, or cannot be reached.

    Example:
        With the config of a project, and ``ray`` installed::

            compare(Comparison(["config.yaml"], methods=["uw"]), "comparisons/digits", RayCluster())
    """

    def __init__(self, jobs: int | None = None) -> None:
        super().__init__(jobs)
        self._ray = _ray()
        self._running: dict[Any, Job] = {}
        self._is_ours = False

    def __enter__(self) -> Self:
        self._is_ours = not self._ray.is_initialized()
        if self._is_ours:
            self._connect(os.environ.get("RAY_ADDRESS") or "local")
        hosts = [host["Resources"] for host in self._ray.nodes() if host["Alive"]]
        cpus = [int(host.get("CPU", 0)) for host in hosts]
        self._most_gpus = int(max(host.get("GPU", 0) for host in hosts))
        self.at_once = self.jobs or max(1, sum(cpus))
        self.threads = max(1, min(max(cpus), sum(cpus) // self.at_once))
        return self

    def _connect(self, address: str) -> None:
        os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
        own = {"include_dashboard": False} if address == "local" else {}
        try:
            _check_reachable(address)
            self._ray.init(address=address, log_to_driver=False, logging_level="ERROR", **own)
        except (OSError, RuntimeError, ValueError) as error:
            found = one_line(error)
            fix = "Set RAY_ADDRESS to a running cluster, or unset it to start Ray on this host"
            raise UserError("--launcher ray", f"Ray must be reachable at '{address}'", found, fix) from error

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._is_ours:
            self._ray.shutdown()

    @property
    def running(self) -> int:
        """How many jobs were submitted to Ray and have not ended."""
        return len(self._running)

    def start(self, job: Job) -> None:
        """Submit a job to Ray.

        Args:
            job: The job.

        Raises:
            UserError: If no host has as many GPUs as the job needs.
        """
        gpus = job.gpus if job.needs_gpus or self._most_gpus else 0
        if gpus > self._most_gpus:
            rule, found = (
                f"a host with {gpus} GPUs is required",
                f"at most {self._most_gpus} on a host of the cluster",
            )
            raise UserError(f"run {job.name}", rule, found, "Set trainer.devices")
        task = self._ray.remote(num_cpus=job.threads, num_gpus=gpus, max_retries=0)(_work_there)
        self._running[task.remote(job, Path.cwd())] = job

    def ended(self) -> Sequence[Ended]:
        """Wait until a job ends, and return all that have ended."""
        # With a timeout, because Ctrl-C does not interrupt Ray's wait at once.
        ready: list[Any] = []
        while not ready:
            ready, _ = self._ray.wait([*self._running], num_returns=1, timeout=_SECONDS)
        return [self._outcome(task, self._running.pop(task)) for task in ready]

    def _outcome(self, task: Any, job: Job) -> Ended:
        try:
            return Ended(job, self._ray.get(task))
        except self._ray.exceptions.RayError as error:
            return Ended(job, Outcome.lost(one_line(error)))

    def stop(self) -> None:
        """Stop jobs that still run, which write their checkpoints first."""
        for task in self._running:
            self._ray.cancel(task)
        if self._running:
            self._ray.wait([*self._running], num_returns=len(self._running))
        self._running = {}


def _work_there(job: Job, folder: Path) -> Outcome:
    """Do a job on a host of the cluster."""
    if not (folder / job.config).is_file():
        found = f"no such file on host {socket.gethostname()}"
        return Outcome.of(UserError(str(folder / job.config), _SHARED, found, "Use a network drive"))
    os.chdir(folder)
    process = start(job)
    try:
        while process.is_alive():
            process.join(_SECONDS)
    finally:
        if process.is_alive():
            process.terminate()
            process.join()
    return read_outcome(job.outcome, process.exitcode)


def _check_reachable(address: str) -> None:
    """Fail at once if nothing listens there: Ray itself tries for minutes, and writes about it."""
    host, _, port = address.removeprefix("ray://").rpartition(":")
    if host and port.isdigit():
        socket.create_connection((host.strip("[]"), int(port)), _PATIENCE).close()


def _ray() -> Any:
    try:
        import ray
    except ImportError as error:
        raise UserError(
            "--launcher ray", "Ray must be installed", "no such package", "pip install 'polytask[ray]'"
        ) from error
    return ray
