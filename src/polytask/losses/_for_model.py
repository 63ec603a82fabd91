"""A criterion whose task names come from the model or the metrics."""

from collections.abc import Mapping, Sequence
from typing import Any

from torch import nn

from polytask._errors import UserError
from polytask.losses._multi_task_loss import MultiTaskLoss


def criterion_for(model: nn.Module, criterion: nn.Module, measured: Sequence[str] = ()) -> nn.Module:
    """The criterion with its tasks named; a single loss serves all tasks.

    Args:
        model: A model; its ``task_names`` name the tasks if the criterion does not.
        criterion: A criterion, or one torch loss.
        measured: The tasks that have metrics, which name the tasks if the model does not.

    Returns:
        The criterion; one torch loss as it is if nothing names the tasks.

    Raises:
        UserError: If nothing names the tasks of a `MultiTaskLoss`.
    """
    names: Sequence[str] = getattr(model, "task_names", None) or measured
    if isinstance(criterion, nn.modules.loss._Loss) and names:
        criterion = MultiTaskLoss(criterion)
    if isinstance(criterion, MultiTaskLoss) and not criterion.names:
        if not names:
            raise UserError(
                "criterion",
                "a single loss requires a model with task_names, or metrics by task",
                f"a {type(model).__name__} without task_names",
                "Give MultiTaskLoss a dict, or tasks=[...]",
            )
        criterion.setup(names)
    return criterion


def check_served(criterion: nn.Module, names: Sequence[str], outputs: Any) -> None:
    """Refuse outputs that a single loss, whose tasks the model does not name, would leave out.

    Args:
        criterion: The single loss, as it was given.
        names: The tasks that it serves; none if nothing names them.
        outputs: The model's outputs, by task.

    Raises:
        UserError: If a task is not served.

    Example:
        >>> check_served(nn.MSELoss(), ["digit"], {"digit": 1.0, "height": 2.0})
        Traceback (most recent call last):
        polytask._errors.UserError: criterion: must name every task that the model has an output for, got ...
    """
    if isinstance(outputs, (list, tuple)):
        outputs = {f"task_{index}": output for index, output in enumerate(outputs)}
    if isinstance(outputs, Mapping) and (left_out := [name for name in outputs if name not in names]):
        raise UserError(
            "criterion",
            "must name every task that the model has an output for",
            f"a {type(criterion).__name__} without {', '.join(map(repr, left_out))}",
            f"Give polytask.losses.MultiTaskLoss a loss for each of {', '.join(outputs)}",
        )
