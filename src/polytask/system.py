"""System: model, criterion, metrics, adapters, loaders and optimizer as one LightningModule."""

import warnings
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Literal

import pytorch_lightning as pl
import torch
from pytorch_lightning.strategies import DDPStrategy
from pytorch_lightning.trainer.states import RunningStage
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel
from torch.optim.lr_scheduler import ReduceLROnPlateau

from polytask._balance import Balance
from polytask._batch import Batch
from polytask._errors import UserError
from polytask._forward import outputs_by_task
from polytask._loaders import loader_of, loaders_by_stage, replayable
from polytask._monitors import monitor_problems
from polytask._nonfinite import check_weights, nonfinite
from polytask._ranks import Ranks
from polytask._record import Record
from polytask._sharing_penalty import penalty_of, with_penalty
from polytask._stages import STAGES, adapters_by_stage, by_stage
from polytask._tasks import SHARING, check_known, check_task_names
from polytask.adapters import CriterionAdapter, LoggingAdapter
from polytask.losses import MultiTaskLoss, Targets
from polytask.losses._for_model import criterion_for
from polytask.optim import OptimizerFactory, SchedulerFactory
from polytask.weighting._base import Gradients

# Lightning warns of a skipped step, and of a run without validation data.
_EXPECTED = (".*`training_step` returned `None`.*", "Total length of `list` across ranks is zero.*")
_STAGE = {
    RunningStage.TRAINING: "train",
    RunningStage.SANITY_CHECKING: "val",
    RunningStage.VALIDATING: "val",
    RunningStage.TESTING: "test",
    RunningStage.PREDICTING: "predict",
}


class System(pl.LightningModule):
    """Everything that one multi-task training needs, as a LightningModule.

    Usable with a plain `pytorch_lightning.Trainer`. The model may be any module that returns a dict
    by task, a list or tuple in the criterion's task order, or, for a batch of one task, a tensor.
    Where the batch carries task ids, the model is called as ``model(x, task_id)`` with a Python int
    for the rows of each task.

    Args:
        model: The model.
        criterion: A `polytask.losses.MultiTaskLoss`; one torch loss that serves all tasks of the
            model; or a module that returns a tensor, or a dict with losses by task and ``total``.
        optimizer: From parameter groups to an optimizer: `functools.partial` of a torch optimizer,
            or an `polytask.optim.OptimizerFactory` with options by group.
        scheduler: From an optimizer to a scheduler, or a `polytask.optim.SchedulerFactory`.
        metrics: By task one metric, a list or a dict of them, for every stage; or by stage
            (``train``, ``val``, ``test``) such mappings.
        adapters: ``batch``, ``criterion``, ``metrics``, ``logging``, for every stage; or by stage
            such mappings.
        dataloaders: Loaders by stage (``train``, ``val``, ``test``, ``predict``).
        level: For a weighting by gradients, what these are measured on: all shared ``parameters``, the
            ``representation``, or the ``last_shared`` layer; the method's own where None.
        refresh_every: Such a weighting measures once in so many optimizer steps, and keeps its weights in
            between.
        scale_heads: Whether the parameters of one task alone see its weight; the method's own where None.
        on_nonfinite: What a loss that is NaN or infinite does in training: ``stop`` ends the run;
            ``skip`` skips the step and counts it, at the price of one device synchronisation a step.

    Raises:
        UserError: Where a part cannot be used, with its key.

    Example:
        >>> import functools
        >>> from polytask.models import MLP, TaskHead, HardParameterSharing
        >>> heads = {"digit": TaskHead(8, 10), "parity": TaskHead(8, 2)}
        >>> system = System(
        ...     HardParameterSharing(MLP(64, [16], 8), heads),
        ...     MultiTaskLoss({"digit": nn.CrossEntropyLoss(), "parity": nn.CrossEntropyLoss()}),
        ...     functools.partial(torch.optim.AdamW, lr=1e-3),
        ... )
        >>> system.names
        ('digit', 'parity')
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
        self._labelled_tasks: set[str] = set()
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
        ignore = self.criterion.ignore_index if isinstance(self.criterion, MultiTaskLoss) else None
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
            self._labelled_tasks.update(batch.targets, set(self.names).intersection(losses))
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

    # ---- training -----------------------------------------------------------------------------

    def training_step(self, batch: Any, batch_idx: int) -> Tensor | None:
        """One step's total loss, or None where no task has a label or the loss is skipped."""
        if self.balance is not None:
            self.balance.begin()
        total = self._step(batch, "train")
        if total is not None:
            return total
        self.skipped += 1
        if self.balance is None or not self.balance.open:
            return None
        # The backward has to be called: other ranks and earlier batches wait for it.
        return torch.zeros((), device=self.device, requires_grad=True)

    def backward(self, loss: Tensor, *args: Any, **kwargs: Any) -> None:
        """Fill ``.grad`` as the weighting wants it, inside Lightning's automatic optimization.

        Args:
            loss: The total, as precision and accumulation have scaled it.
        """
        if self.balance is None:
            super().backward(loss, *args, **kwargs)
            return
        scaled = getattr(self.trainer.precision_plugin, "scaler", None) is not None
        last = self._steps_next
        self.balance.backward(loss, last, self.trainer.accumulate_grad_batches, scaled)
        if last:
            self.balance.average(self.parameters())

    def on_before_optimizer_step(self, optimizer: torch.optim.Optimizer) -> None:
        """Keep the step's weights where they will be logged, before the step changes them."""
        every: int = self.trainer.log_every_n_steps  # type: ignore[attr-defined]
        if self.balance is not None and every and (self.global_step + 1) % every == 0:
            self.balance.keep_weights()

    def optimizer_step(
        self, epoch: int, batch_idx: int, optimizer: Any, optimizer_closure: Any = None
    ) -> None:
        """One step of the optimizer, after which the weighting is told the losses."""
        self._steps_next = True
        try:
            super().optimizer_step(epoch, batch_idx, optimizer, optimizer_closure)
        finally:
            self._steps_next = False
        if self.balance is not None:
            self.balance.after_step(self._measure_again)

    def _measure_again(self, batch: Batch) -> None:
        with self.trainer.precision_plugin.train_step_context():
            self._measure(batch, "train")

    def on_fit_start(self) -> None:
        """Refuse what cannot work; let Lightning not warn of what is meant."""
        callbacks = self.trainer.callbacks  # type: ignore[attr-defined]
        for problem in self.problems(self.dataloaders or STAGES, callbacks):
            raise problem
        for message in _EXPECTED:
            warnings.filterwarnings("ignore", message=message)
        if self.optimizer_factory is None:
            raise UserError("optimizer", "is needed to train", "none")
        if self.balance is not None:
            self.balance.check_batches(self.trainer.accumulate_grad_batches)
            if self.trainer.world_size > 1:
                self._check_strategy(self.balance)

    def _check_strategy(self, balance: Balance) -> None:
        strategy = self.trainer.strategy
        if balance.engine.measures and not isinstance(strategy, DDPStrategy):
            method = type(balance.weighting).__name__
            rule = f"is ddp with {method}, which needs the tasks' gradients by whole parameters"
            raise UserError("trainer.strategy", rule, type(strategy).__name__, "Set it to ddp")
        if balance.engine.measures and any(isinstance(m, nn.SyncBatchNorm) for m in self.model.modules()):
            rule = "is false with a weighting by gradients, which goes back through the model for each task"
            raise UserError("trainer.sync_batchnorm", rule, "true", "Set it to false")

    def on_train_start(self) -> None:
        """Begin to train together with other processes, where there are some."""
        if self.balance is None:
            return
        self.balance.start()
        if not isinstance(self.trainer.strategy, DDPStrategy):
            return
        wrapped = self.trainer.strategy.model
        assert isinstance(wrapped, DistributedDataParallel)
        self.balance.join(Ranks(self.device), self.model if wrapped.broadcast_buffers else None)
        # Its reducer would wait for parameters that this rank's tasks do not reach.
        wrapped.require_backward_grad_sync = False

    def on_train_epoch_start(self) -> None:
        """Refuse a number of batches in a step that the weighting cannot use; callbacks may change it."""
        if self.balance is not None:
            self.balance.check_batches(self.trainer.accumulate_grad_batches)

    def on_train_batch_end(self, outputs: Any, batch: Any, batch_idx: int) -> None:
        """Hand losses, metrics and weights to the loggers every ``log_every_n_steps`` steps."""
        every: int = self.trainer.log_every_n_steps  # type: ignore[attr-defined]
        step = self.global_step
        if every and step % every == 0 and step != self._logged_step:
            self._logged_step = step
            self._log_step(step)

    def _log_step(self, step: int) -> None:
        values = self.record.step_values(self._read_losses())
        if self.balance is not None:
            values |= {f"weights/{name}": weight for name, weight in self.balance.weights.items()}
        for i, group in enumerate(self.trainer.optimizers[0].param_groups):
            values[f"lr/{group.get('name', i)}"] = float(group["lr"])
        self.latest |= values
        for logger in self.loggers:
            # Lightning numbers an epoch's values from 0 as well.
            logger.log_metrics(values, step=step - 1)

    def _read_losses(self) -> dict[str, float]:
        if self.balance is not None:
            self.balance.check()
        meter = self.record.meters["train"]
        losses = meter.read()
        if meter.bad is not None and self.on_nonfinite == "stop":
            raise nonfinite(*meter.bad, self.trainer)
        return losses

    def _refuse_nonfinite(self) -> None:
        bad = self.record.meters["train"].first_bad()
        if bad is not None:
            raise nonfinite(*bad, self.trainer)
        check_weights(self, self.global_step)

    def on_train_epoch_end(self) -> None:
        """Log the epoch's values; refuse an epoch in which a task never had a label."""
        self._read_losses()
        if self.balance is not None:
            if self._saw_all_data():
                self._check_labels()
            self.balance.on_epoch_end(self.record.meters["train"].epoch(self._adding_up()), self.device)
        if self.skipped:
            self.log("train/skipped/epoch", float(self.skipped))
        self._log_epoch("train")

    def _saw_all_data(self) -> bool:
        """Whether the epoch was not cut short by ``max_steps``, a limit or a dry run."""
        limit = self.trainer.limit_train_batches
        return self.trainer.is_last_batch and isinstance(limit, float) and limit == 1.0

    def _check_labels(self) -> None:
        for name in self.names:
            if name not in self._labelled_tasks:
                raise UserError(
                    f"task '{name}'",
                    "needs a label in training",
                    "none in a whole epoch",
                    "Check adapters.batch.target_accessor and the data",
                )

    def on_validation_start(self) -> None:
        """A loss that is not finite stops the run before anything is saved on account of it."""
        if not self.trainer.sanity_checking and self.trainer.state.fn == "fit":
            self._read_losses()

    # ---- evaluation ---------------------------------------------------------------------------

    def validation_step(self, batch: Any, batch_idx: int, dataloader_idx: int = 0) -> None:
        """Keep the batch's losses and rows."""
        self._step(batch, "val")

    def test_step(self, batch: Any, batch_idx: int, dataloader_idx: int = 0) -> None:
        """Keep the batch's losses and rows."""
        self._step(batch, "test")

    def on_validation_epoch_end(self) -> None:
        """Log the epoch's values."""
        self._log_epoch("val")

    def on_test_epoch_end(self) -> None:
        """Log the epoch's values."""
        self._log_epoch("test")

    def predict_step(self, batch: Any, batch_idx: int, dataloader_idx: int = 0) -> dict[str, Any]:
        """Outputs by task, as the logging adapter wants them written, and the rows they are for."""
        batch = self.adapt(batch, "predict")
        outputs = self.outputs(batch)
        if not isinstance(outputs, Mapping):
            outputs = {"output": outputs}
        adapter: LoggingAdapter = self.adapters["predict"]["logging"]
        written = {name: adapter.transformed(name, None, output, None)[1] for name, output in outputs.items()}
        return {"outputs": written, "rows": batch.rows, "size": batch.size}

    def _log_epoch(self, stage: str) -> None:
        parallel = self.trainer.world_size > 1
        values = self.record.epoch_values(stage, self.criterion, self._adding_up())
        if self.trainer.sanity_checking:
            return
        self.latest |= values
        if self.trainer.state.fn == "fit":
            self._step_plateau(values)
        self.log_dict(values, sync_dist=parallel)

    def _adding_up(self) -> Callable[[Tensor], Tensor] | None:
        return self._add_up if self.trainer.world_size > 1 else None

    def _add_up(self, values: Tensor) -> Tensor:
        total = self.trainer.strategy.reduce(values.to(self.device), reduce_op="sum")
        assert isinstance(total, Tensor)
        return total

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

    # ---- resume -------------------------------------------------------------------------------

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Keep the epoch's accumulators, so that a resumed epoch logs what it would have logged.

        Raises:
            RunError: Where a loss or a weight is not finite: what is saved is good to go on with.
        """
        if self.on_nonfinite == "stop":
            self._refuse_nonfinite()
        checkpoint["polytask_epoch"] = {
            "record": self.record.saved(),
            "skipped": self.skipped,
            "labelled": sorted(self._labelled_tasks),
            "logged_step": self._logged_step,
            "balance": None if self.balance is None else self.balance.saved(),
        }

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Take the epoch's accumulators up again."""
        saved = checkpoint.get("polytask_epoch")
        if saved is not None:
            self.record.restore(saved["record"])
            self.skipped = saved["skipped"]
            self._labelled_tasks = set(saved["labelled"])
            self._logged_step = saved["logged_step"]
            if self.balance is not None:
                self.balance.restore(saved["balance"])
