"""The optimizer and scheduler of a training, and when a plateau scheduler steps."""

from collections.abc import Iterable, Mapping
from typing import Any

from torch import nn
from torch.optim.lr_scheduler import ReduceLROnPlateau

from polytask._errors import UserError
from polytask.optim import OptimizerFactory, SchedulerFactory


def optimizer_config(
    optimizers: OptimizerFactory | None,
    schedulers: SchedulerFactory | None,
    model: nn.Module,
    criterion: nn.Module,
) -> Any:
    """What Lightning's ``configure_optimizers`` returns.

    Args:
        optimizers: Builds the optimizer.
        schedulers: Builds the scheduler, if there is one.
        model: The model, whose parameters are trained.
        criterion: The criterion, whose parameters are trained.

    Raises:
        UserError: If there is no optimizer, or ``monitor`` does not fit the scheduler.

    Example:
        >>> import functools, torch
        >>> factory = OptimizerFactory.of(functools.partial(torch.optim.SGD, lr=0.1))
        >>> type(optimizer_config(factory, None, nn.Linear(1, 1), nn.MSELoss())).__name__
        'SGD'
    """
    if optimizers is None:
        raise UserError("optimizer", "is required for training", "none")
    optimizer = optimizers.optimizer(model, criterion)
    if schedulers is None:
        return optimizer
    scheduler = schedulers.scheduler(optimizer)
    _check_monitor(scheduler, schedulers.monitor)
    # Lightning would step a plateau after the epoch's checkpoint, and a resumed run would lose that step.
    config = {"scheduler": scheduler, "interval": schedulers.interval, "reduce_on_plateau": False}
    return {"optimizer": optimizer, "lr_scheduler": config}


def _check_monitor(scheduler: Any, monitor: str | None) -> None:
    where = "scheduler.monitor"
    plateau = isinstance(scheduler, ReduceLROnPlateau)
    if plateau and monitor is None:
        fix = "Set for example monitor: val/loss/total/epoch"
        raise UserError(where, "is required by a plateau scheduler", "None", fix)
    if monitor is not None and not plateau:
        rule = f"must be None for {type(scheduler).__name__}, which is not a plateau scheduler"
        raise UserError(where, rule, repr(monitor), "Remove it")


def step_plateaus(configs: Iterable[Any], monitor: str | None, values: Mapping[str, float]) -> None:
    """Step the plateau schedulers if the key that they monitor is among the values.

    Args:
        configs: The trainer's ``lr_scheduler_configs``.
        monitor: The key.
        values: The values that were logged.

    Example:
        >>> step_plateaus([], "val/loss/total/epoch", {})
    """
    if monitor is None or monitor not in values:
        return
    for config in configs:
        if isinstance(config.scheduler, ReduceLROnPlateau):
            config.scheduler.step(values[monitor])
