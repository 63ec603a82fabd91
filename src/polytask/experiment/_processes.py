"""The processes of a command: which of them this one is, and how they begin and end together."""

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TypeVar, cast

import pytorch_lightning as pl

from polytask._distributed import Ranks
from polytask._errors import Reason, RunError, UserError
from polytask._lightning._training import (
    end_started,
    external_processes,
    join_group,
    started_elsewhere,
    starts_processes,
)

T = TypeVar("T")


def is_first_process() -> bool:
    """Whether this process is not one that Lightning has started for another device.

    Example:
        >>> is_first_process()
        True
    """
    return os.environ.get("LOCAL_RANK", "0") == "0"


class RunProcesses:
    """The processes of a trainer, whoever starts them; each calls the same methods in the same order.

    The trainer's cluster environment decides the rank: that of torchrun, srun, jsrun, MPI or Kubeflow, or
    Lightning's own. If Lightning starts the processes of this host, it does so in the first call; each of
    them repeats the command up to there. Processes that are spawned or forked by the fit itself do not count:
    their parent acts for them.

    Args:
        trainer: A trainer that has not started.

    Raises:
        UserError: If the trainer is not for as many processes as were started, or if the parents of spawned
            processes on several nodes could not agree on a folder.

    Example:
        >>> trainer = pl.Trainer(accelerator="cpu", devices=1, logger=False, enable_checkpointing=False)
        >>> processes = RunProcesses(trainer)
        >>> processes.is_first, processes.on_first(lambda: "runs/demo")
        (True, 'runs/demo')
    """

    def __init__(self, trainer: pl.Trainer) -> None:
        self._trainer = trainer
        self._ranks: Ranks | None = None
        started, wanted = external_processes(trainer), trainer.num_devices * trainer.num_nodes
        if started is not None and started != wanted:
            rule = f"devices times num_nodes must be {started}, the number of processes that were started"
            raise UserError("trainer", rule, wanted, "Change them, or start as many processes")
        spawns = starts_processes(trainer)
        if spawns and trainer.num_nodes > 1:
            found = type(trainer.strategy.launcher).__name__
            raise UserError("trainer.strategy", "must be ddp on several nodes", found, "Set it to ddp")
        self._several = trainer.world_size > 1 and not spawns

    @property
    def is_first(self) -> bool:
        """Whether this process has rank 0: it alone writes the run's files and reports."""
        return self._trainer.is_global_zero

    def on_each(self, work: Callable[[], T]) -> T:
        """Do something on every process, and go on only if it succeeds on all of them.

        Args:
            work: What to do.

        Returns:
            What it returned in this process.

        Raises:
            RunError: If it failed in another process.
        """
        try:
            result = work()
        except Exception as error:
            # No other process waits yet for one that has to start them.
            if self._ranks is not None or started_elsewhere(self._trainer):
                self._gather(Reason.of(error))
            raise
        failed = [(rank, reason) for rank, reason in enumerate(self._gather(None)) if reason is not None]
        for rank, reason in failed[:1]:
            where = f"process {rank} of {self._trainer.world_size}"
            raise RunError(where, "must succeed for the others to continue", reason)
        return result

    def on_first(self, work: Callable[[], T]) -> T:
        """Do something on the first process only.

        Args:
            work: What to do; it returns plain data.

        Returns:
            What it returned, on every process.

        Raises:
            RunError: If it failed, on the other processes.
        """
        first: T | None = self._gather(self.on_each(lambda: work() if self.is_first else None))[0]
        return cast(T, first)

    @contextmanager
    def ending_together(self) -> Iterator[None]:
        """End the processes that this one has started if it fails: they would wait for it."""
        try:
            yield
        except Exception:
            end_started(self._trainer)
            raise

    def _gather(self, value: T) -> list[T]:
        """The values of all processes, by rank."""
        if not self._several:
            return [value]
        if self._ranks is None:
            join_group(self._trainer)
            self._ranks = Ranks(self._trainer.strategy.root_device)
        return self._ranks.gather(value)
