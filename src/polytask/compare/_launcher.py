"""Where jobs run: what a launcher is, and the one that makes processes on this host."""

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
from polytask.compare._work import Job, work

# Imported once; every process begins as a copy.
_PRELOADED = ["polytask.experiment._commands", "polytask.compare._work", "torch.utils.tensorboard"]


class Ended(NamedTuple):
    """A job that ended.

    Attributes:
        job: The job.
        code: The command's exit code; None where it was lost.
        why: Why it failed, where its log cannot say.
    """

    job: Job
    code: int | None
    why: str = ""


class Launcher(ABC):
    """Runs jobs, so many at a time; a context manager around all of them.

    Args:
        jobs: How many at a time; as many as suit the place where None.

    Attributes:
        at_once: How many at a time.
        threads: How many threads each may use.

    Raises:
        UserError: Where the number is below 1.
    """

    at_once: int
    threads: int

    def __init__(self, jobs: int | None = None) -> None:
        if jobs is not None and jobs < 1:
            raise UserError("--jobs", "is 1 or more", jobs)
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
        """How many jobs are under way."""

    @abstractmethod
    def start(self, job: Job) -> None:
        """Begin a job.

        Args:
            job: The job.
        """

    @abstractmethod
    def ended(self) -> Sequence[Ended]:
        """Wait until a job ends; all that have ended since."""

    @abstractmethod
    def stop(self) -> None:
        """Wait for what is still under way after an interrupt, which writes its checkpoint first."""


class Processes(Launcher):
    """Each job in a process of its own, on this host.

    Args:
        jobs: How many at a time, 1 where None.

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
        """How many jobs are under way."""
        return len(self._running)

    def start(self, job: Job) -> None:
        """Begin a job.

        Args:
            job: The job.
        """
        with _interrupts_held():
            self._running.append((job, start(job)))

    def ended(self) -> Sequence[Ended]:
        """Wait until a job ends; all that have ended since."""
        wait([process.sentinel for _, process in self._running])
        ended = [one for one in self._running if not one[1].is_alive()]
        self._running = [one for one in self._running if one not in ended]
        return [Ended(job, process.exitcode) for job, process in ended]

    def stop(self) -> None:
        """Wait for what is still under way: Ctrl-C reached it too."""
        for _, process in self._running:
            process.join()
        self._running = []


def start(job: Job) -> ForkServerProcess:
    """Begin a job in a process of its own.

    Args:
        job: The job.
    """
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(_PRELOADED)
    process = context.Process(target=work, args=(job,))
    with _interrupts_held():
        process.start()
    return process


@contextmanager
def _interrupts_held() -> Iterator[None]:
    """Ctrl-C reaches all processes: none is to die of it, with a traceback, before it does its job.

    The fork server keeps the mask that it is started with and hands it to all that it makes; `work` lifts it.
    """
    # What starts the tracker lets signals through again.
    resource_tracker.ensure_running()
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
