"""Trains a multi-task system on a single task."""

from typing import Any

import pytorch_lightning as pl

from polytask._errors import UserError
from polytask._tasks import check_known
from polytask.batch import Batch, Targets
from polytask.losses import MultiTaskLoss
from polytask.models import MultiTaskModel
from polytask.system import System


class OneTask(pl.Callback):
    """Trains a `polytask.System` on one of its tasks alone, as if there were no other.

    The other tasks' labels are removed from each training batch: a batch without a label of the task is
    skipped, the other tasks' losses are not computed and their heads do not change, not even by weight decay.
    A `polytask.models.MultiTaskModel` computes this task's output only; a model's sharing penalty is left
    out. Validation covers all tasks, so that every monitored key is logged.

    Args:
        task: The task.

    Raises:
        UserError: At the start of a fit, if the task is unknown, the module is not a `polytask.System`, or
            its criterion is not a `polytask.losses.MultiTaskLoss`.

    Example:
        >>> OneTask("digit").task
        'digit'
    """

    def __init__(self, task: str) -> None:
        self.task = task
        self._hook: Any = None
        self._penalty: Any = None

    def on_fit_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Let the model compute one task.

        Raises:
            UserError: If the module is no `polytask.System` with a `MultiTaskLoss`, or it has no such task.
        """
        if not isinstance(pl_module, System):
            raise UserError("OneTask", "must train a polytask.System", type(pl_module).__name__)
        check_known([self.task], pl_module.names, "OneTask.task")
        if not isinstance(pl_module.criterion, MultiTaskLoss):
            found = type(pl_module.criterion).__name__
            raise UserError("OneTask", "requires a MultiTaskLoss as criterion", found)
        self._penalty, pl_module.penalty = pl_module.penalty, None
        model = pl_module.model
        # A list of heads has no names by which one could be requested.
        if isinstance(model, MultiTaskModel) and model.named and self.task in model.task_names:
            self._hook = model.register_forward_pre_hook(self._choose, with_kwargs=True)

    def teardown(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        """Restore the system and its model."""
        if self._penalty is not None and isinstance(pl_module, System):
            pl_module.penalty, self._penalty = self._penalty, None
        if self._hook is not None:
            self._hook.remove()
            self._hook = None

    def on_train_batch_start(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, batch: Batch, batch_idx: int
    ) -> None:
        """Remove the other tasks from the batch."""
        assert isinstance(pl_module, System)
        targets = batch.targets
        batch.targets = Targets(*(self._own(part) for part in (targets, targets.counts, targets.partial)))
        batch.rows = None if batch.rows is None else self._own(batch.rows)
        # The system raises for a task without a label in an epoch; here that is intended.
        pl_module.labelled_tasks.update(name for name in pl_module.names if name != self.task)

    def _own(self, by_task: dict[str, Any]) -> dict[str, Any]:
        return {name: value for name, value in by_task.items() if name == self.task}

    def _choose(self, model: MultiTaskModel, args: tuple[Any, ...], named: dict[str, Any]) -> Any:
        if not model.training or len(args) != 1 or named:
            return None
        return args, {"tasks": [self.task]}
