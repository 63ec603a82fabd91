"""Keeps an optimizer from a step whose gradients are not finite."""

import copy
import math
import warnings
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import pytorch_lightning as pl
import torch
from torch import Tensor

from polytask._errors import RunError
from polytask.batch import Batch
from polytask.system._nonfinite import (
    SkippedStepError,
    bad_rows,
    finite_sums,
    is_bad,
    nonfinite_gradients,
    nonfinite_losses,
)


class StepGuard:
    """Looks at losses and gradients before the optimizer steps.

    If a gradient is not finite, the run ends, or the step is skipped and counted. On a device other than the
    CPU, gradients are not read in a step unless steps may be skipped: the first step with such a gradient is
    kept on the device until `check` reads it.

    Args:
        skip: Whether steps are skipped.

    Attributes:
        skipped: The steps that were skipped, also for the lack of a label.
        batch: The last batch, if its backward may follow.
    """

    def __init__(self, skip: bool) -> None:
        self.skip = skip
        self.skipped = 0
        self._warned: set[str] = set()
        self.batch: Batch | None = None
        self._evaluations = 0
        self._first: Tensor | None = None
        self._taken = self._refused = 0
        # Whether the optimizer evaluates a step more than once, and has moved the parameters by then.
        self._repeats: bool | None = None
        self._before: list[tuple[Tensor, Tensor]] = []
        self._state: dict[str, Any] | None = None

    def begin(self) -> None:
        """Begin an optimizer step."""
        self._evaluations = 0

    def end(self) -> None:
        """End an optimizer step that was taken."""
        self._taken += 1
        self._repeats = bool(self._repeats) or self._evaluations > 1
        self._before, self._state = [], None

    def begin_epoch(self) -> None:
        """Begin an epoch."""
        self._taken = self._refused = 0

    def check_epoch(self, error: Callable[[], RunError]) -> None:
        """Raise if an epoch had no step because of values that are not finite.

        Args:
            error: Makes the error.

        Raises:
            RunError: If no step was taken, and one was skipped for such a value.
        """
        if self._refused and not self._taken:
            raise error()

    @torch.no_grad()
    def restore(self, optimizer: torch.optim.Optimizer) -> None:
        """Give the parameters and the optimizer's state their values before a step that is skipped.

        Args:
            optimizer: The optimizer.
        """
        if self._evaluations > 1 and self._state is not None:
            for parameter, value in self._before:
                parameter.copy_(value)
            optimizer.load_state_dict(self._state)
        self._before, self._state = [], None

    def refuse(self, total: Tensor, losses: Mapping[str, Tensor], step: int, trainer: pl.Trainer) -> None:
        """Warn of a batch whose total is not finite, which is skipped.

        Args:
            total: Its total.
            losses: Its losses by task.
            step: The step's number, from 0.
            trainer: The trainer.
        """
        given = {name: float(loss.detach()) for name, loss in losses.items()}
        values = {name: value for name, value in given.items() if not math.isfinite(value)}
        rows = [] if self.batch is None else bad_rows(self.batch, losses)
        self._refused += 1
        shown = values or {"total": float(total.detach())}
        self._warn(nonfinite_losses(shown, step, trainer, rows), tuple(values))

    def evaluated(
        self,
        total: Tensor | None,
        parameters: Mapping[str, Tensor],
        step: int,
        trainer: pl.Trainer,
        blame: Callable[[Sequence[str]], Sequence[str]],
        explain: Callable[[], RunError | None],
    ) -> None:
        """Check the gradients that a closure has filled, before the optimizer uses them.

        Args:
            total: What was minimised; None if there was nothing to minimise.
            parameters: The parameters by name.
            step: The step's number, from 0.
            trainer: The trainer.
            blame: From parameters to the tasks whose gradients are not finite; without parameters, the tasks
                of which that is known.
            explain: The error for a loss of this step that is not finite, if there is one.

        Raises:
            RunError: If a gradient is not finite.
            SkippedStepError: If there is nothing to step with, or the step is skipped.
        """
        self._evaluations += 1
        if self.skip and self._evaluations == 1 and self._repeats is not False:
            self._before = [(parameter, parameter.detach().clone()) for parameter in parameters.values()]
            self._state = copy.deepcopy(trainer.optimizers[0].state_dict())
        # Otherwise it is too late to skip: the optimizer has moved the parameters.
        may_skip = self.skip and (self._evaluations == 1 or bool(self._before))
        if total is None and self._evaluations > 1:
            if not may_skip:
                raise nonfinite_losses({"total": float("nan")}, step, trainer)
            raise SkippedStepError
        gradients = {name: each.grad for name, each in parameters.items() if each.grad is not None}
        if not gradients:
            if total is None:
                raise SkippedStepError
            return
        fine = finite_sums(gradients.values())
        if fine.device.type != "cpu" and not self.skip:
            self._keep_first(fine, step, trainer)
            return
        bad = self._bad(gradients, fine, trainer)
        tasks = blame(bad)
        found = bool(bad or tasks)
        if not (any_process(torch.tensor(found, device=fine.device), trainer) if self.skip else found):
            return
        rows = [] if self.batch is None else bad_rows(self.batch, tasks)
        error = nonfinite_gradients(tasks, bad, step, trainer, rows)
        if not may_skip:
            raise explain() or error
        self.skipped += 1
        self._refused += 1
        self._warn(error, tasks)
        raise SkippedStepError

    def _bad(self, gradients: Mapping[str, Tensor], fine: Tensor, trainer: pl.Trainer) -> list[str]:
        if bool(fine.all()):
            return []
        # Clipping by value makes a finite gradient of infinity.
        infinite = _clips_by_value(trainer)
        pairs = zip(gradients.items(), fine.tolist(), strict=True)
        return [name for (name, each), good in pairs if not good and is_bad(each, infinite)]

    def _keep_first(self, fine: Tensor, step: int, trainer: pl.Trainer) -> None:
        if _clips_by_value(trainer):
            return
        now = torch.where(fine.all(), -1, step)
        self._first = now if self._first is None else torch.where(self._first < 0, now, self._first)

    def check(self, trainer: pl.Trainer) -> None:
        """Raise if a gradient was not finite in a step that was not read.

        Args:
            trainer: The trainer.

        Raises:
            RunError: With the first such step.
        """
        first, self._first = self._first, None
        if first is not None and int(first) >= 0:
            raise nonfinite_gradients([], [], int(first), trainer)

    def _warn(self, error: RunError, tasks: Sequence[str]) -> None:
        # Once for each task: a loss that stays infinite would be reported in every step.
        key = ", ".join(tasks)
        if key not in self._warned:
            self._warned.add(key)
            text = f"{error.where}: {error.rule}, got {error.found}. The step is skipped."
            warnings.warn(text, UserWarning, stacklevel=2)


def _clips_by_value(trainer: pl.Trainer) -> bool:
    algorithm = trainer.gradient_clip_algorithm
    return bool(trainer.gradient_clip_val) and algorithm is not None and algorithm.value == "value"


def any_process(flag: Tensor, trainer: pl.Trainer) -> bool:
    """Whether the flag is set in any process; read on the host.

    Args:
        flag: This process's flag.
        trainer: The trainer.

    Example:
        >>> trainer = pl.Trainer(accelerator="cpu", logger=False, enable_checkpointing=False)
        >>> any_process(torch.tensor(True), trainer)
        True
    """
    if trainer.world_size > 1:
        flag = trainer.strategy.reduce(flag.float(), reduce_op="sum") > 0
    return bool(flag)
