"""Where jobs run: what a launcher is, and the launcher that starts processes on this host."""

import multiprocessing
import signal
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from multiprocessing import resource_tracker
from multiprocessing.connection import wait
from multiprocessing.context import ForkServerProcess
from types import TracebackType
from typing import NamedTuple, Self

import torch

from polytask._errors import UserError
from polytask.compare._job import Job
from polytask.compare._outcome import Outcome, read_outcome
from polytask.compare._work import work

# Imported once; every process starts as a copy.
_PRELOADED = ["polytask.compare._work", "torch.utils.tensorboard"]


class Ended(NamedTuple):
    """A job that ended.

    Attributes:
        job: The job.
        outcome: How it ended.
    """

    job: Job
    outcome: Outcome


class Launcher(ABC):
    """Runs jobs, a given number at a time; a context manager around all of them.

    A new launcher implements `start`, `ended`, `stop` and `running`, and calls `start` of this module in the
    process, or on the host, that a job is to run in. `polytask.cli` lists the launchers by name.

    Args:
        jobs: How many at a time; if None as many as the launcher has room for.

    Attributes:
        at_once: How many at a time.
        threads: How many threads each may use.

    Raises:
        UserError: If the number is below 1.

    Example:
        >>> from polytask.compare import Processes
        >>> launcher = Processes(2)
        >>> isinstance(launcher, Launcher), launcher.running
        (True, 0)
    """

    at_once: int
    threads: int

    def __init__(self, jobs: int | None = None) -> None:
        if jobs is not None and jobs < 1:
            raise UserError("--jobs", "must be 1 or more", jobs)
        self.jobs = jobs

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        return None

    @property
    @abstractmethod
    def running(self) -> int:
        """How many jobs run now."""

    @abstractmethod
    def start(self, job: Job) -> None:
        """Start a job.

        Args:
            job: The job.
        """

    @abstractmethod
    def ended(self) -> Sequence[Ended]:
        """Wait until a job ends, and return all that have ended."""

    @abstractmethod
    def stop(self) -> None:
        """Wait for jobs that still run after an interrupt, which write their checkpoints first."""


class Processes(Launcher):
    """Each job in a process of its own, on this host.

    Args:
        jobs: How many at a time; 1 if None.

    Example:
        >>> Processes(2).at_once
        2
    """

    def __init__(self, jobs: int | None = None) -> None:
        super().__init__(jobs)
        self.at_once = jobs or 1
        self.threads = max(1, torch.get_num_threads() // self.at_once)
        self._running: list[tuple[Job, ForkServerProcess]] = []

    @property
    def running(self) -> int:
        """How many jobs run now."""
        return len(self._running)

    def start(self, job: Job) -> None:
        """Start a job.

        Args:
            job: The job.
        """
        with _interrupts_held():
            self._running.append((job, start(job)))

    def ended(self) -> Sequence[Ended]:
        """Wait until a job ends, and return all that have ended."""
        wait([process.sentinel for _, process in self._running])
        ended = [one for one in self._running if not one[1].is_alive()]
        self._running = [one for one in self._running if one not in ended]
        return [Ended(job, read_outcome(job.outcome, process.exitcode)) for job, process in ended]

    def stop(self) -> None:
        """Wait for jobs that still run: Ctrl-C reached them too."""
        for _, process in self._running:
            process.join()
        self._running = []


def start(job: Job) -> ForkServerProcess:
    """Start a job in a process of its own.

    Args:
        job: The job.
    """
    job.outcome.unlink(missing_ok=True)
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(_PRELOADED)
    process = context.Process(target=work, args=(job,))
    with _interrupts_held():
        process.start()
    return process


@contextmanager
def _interrupts_held() -> Iterator[None]:
    """Block Ctrl-C, which reaches all processes: none should end with a traceback before it begins its job.

    The fork server keeps the signal mask that it is started with, and so do the processes that it makes;
    `work` unblocks Ctrl-C.
    """
    # Starting the tracker unblocks signals.
    resource_tracker.ensure_running()
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
