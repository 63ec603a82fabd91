"""What is checked before a fit touches any data: monitors, transforms and the strategy."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import pytorch_lightning as pl
from pytorch_lightning.strategies import DDPStrategy
from torch import nn
from torch.nn.parameter import is_lazy

from polytask._errors import UserError, hint
from polytask._tasks import check_known
from polytask.system._task_backward import TaskBackward


def monitor_problems(
    monitors: Iterable[tuple[str, str | None]], keys: Sequence[str], may_log: Callable[[str], bool]
) -> list[UserError]:
    """The errors of the monitors that no key can serve.

    Args:
        monitors: What monitors, with the key if there is one.
        keys: Keys that will be logged, to name the nearest.
        may_log: Whether a key may be logged.

    Example:
        >>> keys = ["val/loss/total/epoch"]
        >>> (problem,) = monitor_problems([("EarlyStopping", "val/loss/epoch")], keys, keys.__contains__)
        >>> print(problem)
        EarlyStopping.monitor: must be a key that is logged, got 'val/loss/epoch'. Did you mean
        'val/loss/total/epoch'?
    """
    return [
        UserError(f"{where}.monitor", "must be a key that is logged", repr(monitor), hint(monitor, keys))
        for where, monitor in monitors
        if monitor is not None and not may_log(monitor)
    ]


def unvalidated(monitors: Iterable[tuple[str, str | None]]) -> list[UserError]:
    """The errors of the monitors of a validation that the trainer does not run.

    Args:
        monitors: What monitors, with the key if there is one.

    Example:
        >>> print(*unvalidated([("EarlyStopping", "val/loss/a/epoch"), ("scheduler", "train/loss/a/epoch")]))
        EarlyStopping.monitor: must be a key that is logged, got 'val/loss/a/epoch' with
        trainer.limit_val_batches=0, which runs no validation. Remove the limit, or monitor a key of train.
    """
    return [
        UserError(
            f"{where}.monitor",
            "must be a key that is logged",
            f"{monitor!r} with trainer.limit_val_batches=0, which runs no validation",
            "Remove the limit, or monitor a key of train",
        )
        for where, monitor in monitors
        if monitor is not None and monitor.startswith("val/")
    ]


def check_transforms(adapters: Mapping[str, Mapping[str, Any]], names: Sequence[str]) -> None:
    """Check that transforms by task name tasks.

    Args:
        adapters: The adapters of every stage.
        names: All tasks.

    Raises:
        UserError: If a transform is for an unknown task.

    Example:
        >>> from polytask.system._stages import adapters_by_stage
        >>> check_transforms(adapters_by_stage(None), ["digit"])
    """
    for by_kind in adapters.values():
        for kind in ("criterion", "metrics", "logging"):
            check_known(by_kind[kind].tasks(), names, f"adapters.{kind}")


def check_strategy(strategy: Any, model: nn.Module, task_backward: TaskBackward) -> None:
    """Check that a gradient-based weighting can work with several processes.

    Args:
        strategy: The trainer's strategy.
        model: The model, as the strategy has prepared it.
        task_backward: What fills the gradients.

    Raises:
        UserError: If the strategy shards parameters, or batch norm is synchronised.

    Example:
        >>> from polytask.losses import MultiTaskLoss
        >>> model = nn.Linear(2, 3)
        >>> loss = MultiTaskLoss({"digit": nn.CrossEntropyLoss()})
        >>> check_strategy(DDPStrategy(), model, TaskBackward(model, loss))
    """
    if not task_backward.engine.measures:
        return
    method = type(task_backward.weighting).__name__
    if not isinstance(strategy, DDPStrategy):
        rule = f"must be ddp with {method}, which needs each task's gradients of whole parameters"
        raise UserError("trainer.strategy", rule, type(strategy).__name__, "Set it to ddp")
    if any(isinstance(module, nn.SyncBatchNorm) for module in model.modules()):
        rule = f"must be false with {method}, which runs a backward of the model for each task"
        raise UserError("trainer.sync_batchnorm", rule, "true", "Set it to false")


def check_initialized(model: nn.Module) -> None:
    """Check that every parameter has a shape, which several processes need before the first batch.

    Args:
        model: The model.

    Raises:
        UserError: If it has lazy modules that were never called.

    Example:
        >>> check_initialized(nn.Linear(2, 3))
    """
    lazy = [name for name, parameter in model.named_parameters() if is_lazy(parameter)]
    if lazy:
        rule = "must have no uninitialized parameters with several processes"
        fix = "Give the layers their sizes, or train with one process"
        raise UserError("model", rule, ", ".join(lazy[:3]), fix)


def check_labels(names: Iterable[str], labelled: Iterable[str]) -> None:
    """Check that every task had a label in an epoch of training.

    Args:
        names: All tasks.
        labelled: The tasks that had one.

    Raises:
        UserError: With the first task that had none.

    Example:
        >>> check_labels(["digit"], {"digit"})
    """
    for name in names:
        if name not in labelled:
            raise UserError(
                f"task '{name}'",
                "must have a label in training",
                "none in a whole epoch",
                "Check adapters.batch.target_accessor and the data",
            )


def monitors_of(callbacks: Iterable[pl.Callback]) -> list[tuple[str, str | None]]:
    """Callbacks by class, with the key that each monitors.

    Args:
        callbacks: The trainer's callbacks.

    Example:
        >>> from pytorch_lightning.callbacks import EarlyStopping
        >>> monitors_of([EarlyStopping("val/loss/total/epoch")])
        [('EarlyStopping', 'val/loss/total/epoch')]
    """
    return [(type(callback).__name__, getattr(callback, "monitor", None)) for callback in callbacks]
