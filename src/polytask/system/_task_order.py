"""The tasks of a `System`, and their order in criterion and model."""

from collections.abc import Mapping, Sequence
from typing import Any

from torch import nn

from polytask._errors import UserError
from polytask._tasks import check_task_names
from polytask.losses import MultiTaskLoss


def task_names(model: nn.Module, criterion: nn.Module, metrics: Mapping[str, Any]) -> tuple[str, ...]:
    """The tasks' names: those of the criterion, else of the model, else of the metrics.

    Args:
        model: The model.
        criterion: The criterion.
        metrics: Metrics by task, by stage.

    Example:
        >>> loss = MultiTaskLoss({"digit": nn.CrossEntropyLoss()})
        >>> task_names(nn.Linear(1, 1), loss, {}), task_names(nn.Linear(1, 1), nn.MSELoss(), {})
        (('digit',), ())
    """
    if isinstance(criterion, MultiTaskLoss):
        return criterion.names
    of_model = getattr(model, "task_names", None)
    if of_model:
        return check_task_names(of_model, "model.task_names")
    return measured_tasks(metrics)


def measured_tasks(metrics: Mapping[str, Any]) -> tuple[str, ...]:
    """The tasks that have metrics in some stage, in order.

    Args:
        metrics: Metrics by task, by stage.

    Example:
        >>> measured_tasks({"train": {"digit": []}, "val": {"digit": [], "parity": []}, "test": None})
        ('digit', 'parity')
    """
    named = {task: None for by_task in metrics.values() for task in by_task or {}}
    return check_task_names(named, "metrics") if named else ()


def check_head_order(
    model: nn.Module, names: Sequence[str], adapters: Mapping[str, Mapping[str, Any]]
) -> None:
    """Check that a task id means the same task in the criterion and in the model.

    Args:
        model: The model.
        names: The criterion's tasks, in order.
        adapters: The adapters of every stage.

    Raises:
        UserError: If batches carry task ids, and the model's heads are in another order.

    Example:
        >>> from polytask.system._stages import adapters_by_stage
        >>> check_head_order(nn.Linear(1, 1), ["digit"], adapters_by_stage(None))
    """
    heads = tuple(getattr(model, "task_names", ()))
    routed = any(by_kind["batch"].task_accessor is not None for by_kind in adapters.values())
    if routed and set(heads) == set(names) and heads != tuple(names):
        raise UserError(
            "model",
            f"heads must be in the criterion's order {', '.join(names)} if batches carry task ids",
            ", ".join(heads),
            "Reorder the heads or the losses",
        )
