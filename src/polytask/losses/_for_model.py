"""A criterion whose task names come from the model or the metrics."""

from collections.abc import Sequence

from torch import nn

from polytask._errors import UserError
from polytask.losses._multi_task_loss import MultiTaskLoss


def criterion_for(model: nn.Module, criterion: nn.Module, measured: Sequence[str] = ()) -> nn.Module:
    """The criterion with its tasks named; a single loss serves all tasks.

    Args:
        model: A model; its ``task_names`` name the tasks if the criterion does not.
        criterion: A criterion, or one torch loss.
        measured: The tasks that have metrics, which name the tasks of a torch loss if the model does not.

    Raises:
        UserError: If neither the criterion nor the model names the tasks.
    """
    names: Sequence[str] | None = getattr(model, "task_names", None)
    if isinstance(criterion, nn.modules.loss._Loss) and (names or measured):
        criterion = MultiTaskLoss(criterion, tasks=None if names else measured)
    if isinstance(criterion, MultiTaskLoss) and not criterion.names:
        if not names:
            raise UserError(
                "criterion",
                "a single loss requires a model with task_names",
                f"a {type(model).__name__} without task_names",
                "Give MultiTaskLoss a dict, or tasks=[...]",
            )
        criterion.setup(names)
    return criterion
