"""The parts of one multi-task training, and what they make of a batch."""

from collections.abc import Callable, Iterable, Mapping
from typing import Any, Literal

import pytorch_lightning as pl
import torch
from pytorch_lightning.trainer.states import RunningStage
from torch import Tensor, nn
from torch.optim.lr_scheduler import ReduceLROnPlateau

from polytask._errors import UserError
from polytask._tasks import SHARING, check_known, check_task_names
from polytask.adapters import CriterionAdapter
from polytask.batch import Batch
from polytask.losses import MultiTaskLoss, Targets
from polytask.losses._for_model import criterion_for
from polytask.optim import OptimizerFactory, SchedulerFactory
from polytask.system._forward import outputs_by_task
from polytask.system._loaders import loader_of, loaders_by_stage, replayable
from polytask.system._monitors import monitor_problems
from polytask.system._sharing_penalty import penalty_of, with_penalty
from polytask.system._stage_log import Record
from polytask.system._stages import STAGES, adapters_by_stage, by_stage
from polytask.system._task_backward import Balance
from polytask.weighting._base import Gradients

_STAGE = {
    RunningStage.TRAINING: "train",
    RunningStage.SANITY_CHECKING: "val",
    RunningStage.VALIDATING: "val",
    RunningStage.TESTING: "test",
    RunningStage.PREDICTING: "predict",
}


class Assembly(pl.LightningModule):
    """Model, criterion, metrics, adapters, loaders, optimizer and scheduler, put together and checked.

    `polytask.System`, which says what each argument is, trains and judges with them.
    """

    def __init__(
        self,
        model: nn.Module,
        criterion: nn.Module,
        optimizer: OptimizerFactory | Callable[..., torch.optim.Optimizer] | None = None,
        scheduler: SchedulerFactory | Callable[[torch.optim.Optimizer], Any] | None = None,
        metrics: Mapping[str, Any] | None = None,
        adapters: Mapping[str, Any] | None = None,
        dataloaders: Mapping[str, Any] | None = None,
        *,
        level: Gradients | None = None,
        refresh_every: int = 1,
        scale_heads: bool | None = None,
        on_nonfinite: Literal["stop", "skip"] = "stop",
    ) -> None:
        super().__init__()
        for value, where in ((model, "model"), (criterion, "criterion")):
            if not isinstance(value, nn.Module):
                raise UserError(where, "must be a torch.nn.Module", type(value).__name__)
        if on_nonfinite not in ("stop", "skip"):
            raise UserError("on_nonfinite", "is 'stop' or 'skip'", repr(on_nonfinite))
        self.model = model
        self.criterion = criterion_for(model, criterion)
        self.balance = self._balance(level, refresh_every, scale_heads)
        self._steps_next = False
        self.optimizer_factory = OptimizerFactory.of(optimizer)
        self.scheduler_factory = SchedulerFactory.of(scheduler)
        given = by_stage(metrics, "metrics")
        self.names = self._names(given)
        self.adapters = adapters_by_stage(adapters)
        self._check_order()
        self.penalty = penalty_of(model)
        self.record = Record(self.names, given, self.adapters, () if self.penalty is None else (SHARING,))
        self.dataloaders = loaders_by_stage(dataloaders)
        self.on_nonfinite = on_nonfinite
        self.skipped = 0
        self.latest: dict[str, float] = {}
        self.labelled_tasks: set[str] = set()
        self._logged_step = 0

    # ---- parts --------------------------------------------------------------------------------

    def _balance(
        self, level: Gradients | None, refresh_every: int, scale_heads: bool | None
    ) -> Balance | None:
        if isinstance(self.criterion, MultiTaskLoss):
            return Balance(self.model, self.criterion, level, refresh_every, scale_heads)
        if (level, refresh_every, scale_heads) != (None, 1, None):
            rule = (
                "level, refresh_every and scale_heads are for a MultiTaskLoss with a weighting by gradients"
            )
            raise UserError("system", rule, type(self.criterion).__name__, "Leave them out")
        return None

    def _names(self, metrics: Mapping[str, Any]) -> tuple[str, ...]:
        if isinstance(self.criterion, MultiTaskLoss):
            return self.criterion.names
        of_model = getattr(self.model, "task_names", None)
        if of_model:
            return check_task_names(of_model, "model.task_names")
        named = {task: None for by_task in metrics.values() for task in by_task or {}}
        return check_task_names(named, "metrics") if named else ()

    def _check_order(self) -> None:
        """A task id is a place among the criterion's tasks and the model's heads: one order for both."""
        heads = tuple(getattr(self.model, "task_names", ()))
        routed = any(adapters["batch"].task_accessor is not None for adapters in self.adapters.values())
        if routed and set(heads) == set(self.names) and heads != self.names:
            raise UserError(
                "model",
                f"with task ids, heads stand in the criterion's order {', '.join(self.names)}",
                ", ".join(heads),
                "Reorder the heads or the losses",
            )

    def log_keys(self, stages: Iterable[str] = STAGES[:3]) -> list[str]:
        """Every key that these stages log at the end of an epoch.

        Args:
            stages: Stages that have data.
        """
        return self.record.log_keys(stages)

    def problems(self, stages: Iterable[str], callbacks: Iterable[Any] = ()) -> list[UserError]:
        """What is wrong with monitors, groups and transforms, found before any data is touched.

        Args:
            stages: Stages that have data; only ``train`` and ``val`` log while it trains.
            callbacks: Callbacks whose ``monitor`` must be a key that is logged.
        """
        monitored = [(type(callback).__name__, getattr(callback, "monitor", None)) for callback in callbacks]
        if self.scheduler_factory is not None:
            monitored.append(("scheduler", self.scheduler_factory.monitor))
        logging = [stage for stage in stages if stage in ("train", "val")]
        own = self._names_losses_itself()
        found = monitor_problems(
            monitored, self.log_keys(logging), lambda key: self.record.may_log(key, logging, own)
        )
        for attempt in (self._check_transforms, self._check_optimizers):
            try:
                attempt()
            except UserError as error:
                found.append(error)
        return found

    def _names_losses_itself(self) -> bool:
        ours = isinstance(self.criterion, MultiTaskLoss)
        return not ours or type(self.criterion).forward is not MultiTaskLoss.forward

    def _check_transforms(self) -> None:
        for adapters in self.adapters.values():
            for kind in ("criterion", "metrics", "logging"):
                check_known(adapters[kind].tasks(), self.names, f"adapters.{kind}")

    def _check_optimizers(self) -> None:
        if self.optimizer_factory is not None:
            self.configure_optimizers()

    def main_metrics(self, stage: str) -> list[str]:
        """``<task>/<Metric>`` for the first metric of each task.

        Args:
            stage: ``train``, ``val`` or ``test``.
        """
        first: dict[str, str] = {}
        for key in self.record.of(stage).log_keys():
            first.setdefault(key.split("/")[0], key)
        return list(first.values())

    # ---- one batch ----------------------------------------------------------------------------

    def forward(self, inputs: Any, tasks: Any = None) -> Any:
        """The model's own forward; task ids or names are passed on where given."""
        return self.model(inputs) if tasks is None else self.model(inputs, tasks)

    def on_before_batch_transfer(self, batch: Any, dataloader_idx: int) -> Batch:
        """Find the parts of the batch and count its labels while it is on the host."""
        stage = self.trainer.state.stage
        assert stage is not None
        return self.adapt(batch, _STAGE[stage])

    def transfer_batch_to_device(self, batch: Batch, device: torch.device, dataloader_idx: int) -> Batch:
        """Move the batch."""
        return batch.to(device)

    def adapt(self, batch: Any, stage: str) -> Batch:
        """The parts of a batch, its labels counted.

        Args:
            batch: What the stage's loader yields.
            stage: ``train``, ``val``, ``test`` or ``predict``.
        """
        if isinstance(batch, Batch):
            return batch
        ignore = (
            self.criterion.measurement.ignore_index if isinstance(self.criterion, MultiTaskLoss) else None
        )
        adapted: Batch = self.adapters[stage]["batch"](
            batch, self.names, ignore, need_targets=stage != "predict"
        )
        return adapted

    def outputs(self, batch: Batch) -> Any:
        """The model's outputs by task; as they come where the tasks have no names.

        Args:
            batch: An adapted batch.

        Raises:
            UserError: Where the model fails on the inputs, or returns something else.
        """
        return outputs_by_task(self.model, batch, self.names)

    def _step(self, batch: Any, stage: str) -> Tensor | None:
        batch = self.adapt(batch, stage)
        counted = isinstance(batch.targets, Targets)
        if counted and not batch.targets and not self._joined(stage):
            return None
        outputs, total, losses = self._measure(batch, stage)
        if counted and not losses and not batch.targets:
            return None
        if counted and stage == "train":
            # A task may have all of its labels on other ranks.
            self.labelled_tasks.update(batch.targets, set(self.names).intersection(losses))
        if stage == "train" and self.on_nonfinite == "skip" and not bool(torch.isfinite(total)):
            return None
        self.record.add(stage, batch, outputs, total, losses, self.criterion, self.global_step)
        if stage == "train" and self.balance is not None:
            self.balance.note(batch, total, losses)
        return total

    def _joined(self, stage: str) -> bool:
        """Whether other ranks may have labels where this one has none."""
        return stage == "train" and self.balance is not None and self.balance.ranks is not None

    def _measure(self, batch: Batch, stage: str) -> tuple[Any, Tensor, dict[str, Tensor]]:
        """Outputs, total and losses by task."""
        outputs = self.outputs(batch)
        adapter: CriterionAdapter = self.adapters[stage]["criterion"]
        total, losses = adapter(self.criterion, batch.inputs, outputs, batch.targets)
        # Without any label on any rank there is no step, and nothing to add to.
        idle = isinstance(batch.targets, Targets) and not losses
        return outputs, *with_penalty(None if idle else self.penalty, total, losses)

    # ---- optimizers and data ------------------------------------------------------------------

    def configure_optimizers(self) -> Any:
        """The optimizer of the model's and the criterion's parameters, and its scheduler."""
        if self.optimizer_factory is None:
            raise UserError("optimizer", "is needed to train", "none")
        optimizer = self.optimizer_factory.optimizer(self.model, self.criterion)
        if self.scheduler_factory is None:
            return optimizer
        factory = self.scheduler_factory
        scheduler = factory.scheduler(optimizer)
        plateau = isinstance(scheduler, ReduceLROnPlateau)
        if plateau != (factory.monitor is not None):
            raise UserError(
                "scheduler.monitor",
                "is needed by a plateau scheduler" if plateau else "is for plateau schedulers only",
                repr(factory.monitor),
                "Write for example monitor: val/loss/total/epoch" if plateau else "Remove it",
            )
        # Lightning would step a plateau after the epoch's checkpoint, and a resumed run would lose that step.
        config = {"scheduler": scheduler, "interval": factory.interval, "reduce_on_plateau": False}
        return {"optimizer": optimizer, "lr_scheduler": config}

    def lr_scheduler_step(self, scheduler: Any, metric: Any) -> None:
        """Step a scheduler; a plateau scheduler steps when its key is logged instead."""
        if not isinstance(scheduler, ReduceLROnPlateau):
            super().lr_scheduler_step(scheduler, metric)

    def _step_plateau(self, values: Mapping[str, float]) -> None:
        monitor = self.scheduler_factory.monitor if self.scheduler_factory is not None else None
        if monitor is None or monitor not in values:
            return
        for config in self.trainer.lr_scheduler_configs:
            if isinstance(config.scheduler, ReduceLROnPlateau):
                config.scheduler.step(values[monitor])

    def train_dataloader(self) -> Any:
        """The training loader, in a form that resumes in the middle of an epoch.

        With several processes, or a few batches to overfit, it is left as it is, since Lightning puts
        another sampler into it.
        """
        loader = loader_of(self.dataloaders, "train")
        overfit: float = self.trainer.overfit_batches  # type: ignore[attr-defined]
        return loader if self.trainer.world_size > 1 or overfit else replayable(loader)

    def val_dataloader(self) -> Any:
        """The validation loader; none where not given."""
        return loader_of(self.dataloaders, "val") if "val" in self.dataloaders else []

    def test_dataloader(self) -> Any:
        """The test loader."""
        return loader_of(self.dataloaders, "test")

    def predict_dataloader(self) -> Any:
        """The loader of what is to be predicted."""
        return loader_of(self.dataloaders, "predict")
