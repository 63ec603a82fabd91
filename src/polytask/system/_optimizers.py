"""The optimizer and scheduler of a training, and when a plateau scheduler steps."""

import copy
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from torch import nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import ReduceLROnPlateau

from polytask._errors import UserError
from polytask.optim import OptimizerFactory, SchedulerFactory


@dataclass(frozen=True)
class Optimization:
    """An optimizer and its scheduler, and what they were given.

    Args:
        optimizer: The optimizer.
        scheduler: The scheduler; None if there is none.
        given: As plain data: the optimizer's type, and the options of its groups before a scheduler changes
            them; the scheduler's type, interval and first state.

    Example:
        >>> import functools, torch
        >>> factory = OptimizerFactory.of(functools.partial(torch.optim.SGD, lr=0.1))
        >>> made = Optimization.of(factory, None, nn.Linear(1, 1), nn.MSELoss())
        >>> made.given["optimizer"], made.given["options"][0]["lr"], made.given["scheduler"]
        ('torch.optim.sgd.SGD', 0.1, None)
    """

    optimizer: Optimizer
    scheduler: Any
    given: dict[str, Any]

    @classmethod
    def of(
        cls,
        optimizers: OptimizerFactory | None,
        schedulers: SchedulerFactory | None,
        model: nn.Module,
        criterion: nn.Module,
    ) -> "Optimization":
        """The optimizer of a training and its scheduler, before their first step.

        Args:
            optimizers: Builds the optimizer.
            schedulers: Builds the scheduler, if there is one.
            model: The model, whose parameters are trained.
            criterion: The criterion, whose parameters are trained.

        Raises:
            UserError: If there is no optimizer, or ``monitor`` does not fit the scheduler.
        """
        if optimizers is None:
            raise UserError("optimizer", "is required for training", "none")
        made = cls._scheduled(optimizers.optimizer(model, criterion), schedulers)
        if schedulers is not None:
            _check_monitor(made.scheduler, schedulers.monitor)
        return made

    @classmethod
    def _scheduled(cls, optimizer: Optimizer, schedulers: SchedulerFactory | None) -> "Optimization":
        given: dict[str, Any] = {"optimizer": _type(optimizer), "options": group_options(optimizer)}
        if schedulers is None:
            return cls(optimizer, None, {**given, "scheduler": None})
        scheduler = schedulers.scheduler(optimizer)
        state = copy.deepcopy(scheduler.state_dict())
        described = {"type": _type(scheduler), "interval": schedulers.interval, "state": state}
        return cls(optimizer, scheduler, {**given, "scheduler": described})

    @property
    def lightning_config(self) -> Any:
        """What Lightning's ``configure_optimizers`` returns."""
        if self.scheduler is None:
            return self.optimizer
        # Lightning would step a plateau after the epoch's checkpoint, and a resumed run would lose that step.
        interval = self.given["scheduler"]["interval"]
        config = {"scheduler": self.scheduler, "interval": interval, "reduce_on_plateau": False}
        return {"optimizer": self.optimizer, "lr_scheduler": config}

    def again(self, optimizers: OptimizerFactory, schedulers: SchedulerFactory | None) -> "Optimization":
        """Another optimizer of the same parameters and its scheduler, before their first step.

        Args:
            optimizers: Built the optimizer.
            schedulers: Built the scheduler.
        """
        groups = [
            {**options, "params": group["params"]}
            for group, options in zip(self.optimizer.param_groups, self.given["options"], strict=False)
        ]
        return self._scheduled(optimizers.build(groups), schedulers)


def group_options(optimizer: Optimizer) -> list[dict[str, Any]]:
    """The options of an optimizer's groups.

    Args:
        optimizer: The optimizer.
    """
    return [
        copy.deepcopy({name: value for name, value in group.items() if name != "params"})
        for group in optimizer.param_groups
    ]


def _type(found: object) -> str:
    return f"{type(found).__module__}.{type(found).__qualname__}"


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
    """Step the plateau schedulers if the key that they monitor has a value.

    Args:
        configs: The trainer's ``lr_scheduler_configs``.
        monitor: The key.
        values: The values that were logged.

    Example:
        >>> step_plateaus([], "val/loss/total/epoch", {})
    """
    if monitor is None or math.isnan(values.get(monitor, math.nan)):
        return
    for config in configs:
        if isinstance(config.scheduler, ReduceLROnPlateau):
            config.scheduler.step(values[monitor])
