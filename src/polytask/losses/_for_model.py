"""A criterion whose task names come from the model."""

from collections.abc import Sequence

from torch import nn

from polytask._errors import UserError
from polytask.losses._multi_task_loss import MultiTaskLoss


def criterion_for(model: nn.Module, criterion: nn.Module) -> nn.Module:
    """The criterion with its tasks named; a single loss serves all tasks of the model.

    Args:
        model: A model, with ``task_names`` if the criterion does not name the tasks.
        criterion: A criterion, or one torch loss.

    Raises:
        UserError: If neither the criterion nor the model names the tasks.
    """
    names: Sequence[str] | None = getattr(model, "task_names", None)
    if isinstance(criterion, nn.modules.loss._Loss) and names:
        criterion = MultiTaskLoss(criterion)
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
