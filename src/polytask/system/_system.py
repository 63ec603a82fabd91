"""System: model, criterion, metrics, adapters, loaders and optimizer as one LightningModule."""

import warnings
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from typing import Any, Literal

import pytorch_lightning as pl
import torch
from lightning_fabric.utilities import move_data_to_device
from pytorch_lightning.strategies import DDPStrategy
from pytorch_lightning.trainer.states import RunningStage
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel
from torch.optim.lr_scheduler import ReduceLROnPlateau

from polytask._distributed import Ranks
from polytask._errors import RunError, UserError
from polytask._lightning._noise import Silence, silence
from polytask._lightning._training import own_share, trained_epochs, widen
from polytask._tasks import SHARING
from polytask.adapters import CriterionAdapter
from polytask.batch import IGNORE_INDEX, Batch
from polytask.batch._label_masks import is_missing
from polytask.data._positions import in_order
from polytask.losses import MultiTaskLoss, Targets, TaskLosses
from polytask.losses._for_model import check_served, criterion_for
from polytask.losses._totals import has_objective
from polytask.optim import OptimizerFactory, SchedulerFactory
from polytask.system._evaluation_faults import EvaluationFaults
from polytask.system._fit_checks import (
    check_initialized,
    check_labels,
    check_strategy,
    check_transforms,
    monitor_problems,
    monitors_of,
    unvalidated,
)
from polytask.system._forward import outputs_by_task, predictions
from polytask.system._given import GIVEN, Resumption
from polytask.system._graphs import GraphCheck
from polytask.system._nonfinite import (
    SkippedStepError,
    bad_rows,
    check_weights,
    every_step_skipped,
    nonfinite_losses,
)
from polytask.system._optimizers import Optimization, step_plateaus
from polytask.system._predicted_rows import PredictedRows
from polytask.system._saved_buffers import SavedBuffers
from polytask.system._sharing_penalty import penalty_of, with_penalty
from polytask.system._stage_loaders import loader_names, loader_of, loaders_by_stage, replayable
from polytask.system._stage_log import StageLog
from polytask.system._stages import STAGES, adapters_by_stage, by_stage
from polytask.system._step_guard import StepGuard, any_process
from polytask.system._task_backward import TaskBackward
from polytask.system._task_order import check_head_order, measured_tasks, task_names
from polytask.weighting._base import Gradients

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
    If the batch carries task ids, the model is called as ``model(x, task_id)`` with a Python int
    for the rows of each task.

    Args:
        model: The model.
        criterion: A `polytask.losses.MultiTaskLoss`; one torch loss that serves all tasks of the
            model; or a module that returns a tensor, or a dict with losses by task and ``total``.
        optimizer: From parameter groups to an optimizer: `functools.partial` of a torch optimizer,
            or a `polytask.optim.OptimizerFactory` with options by group.
        scheduler: From an optimizer to a scheduler, or a `polytask.optim.SchedulerFactory`.
        metrics: By task one metric, a list or a dict of them, for every stage; or by stage
            (``train``, ``val``, ``test``) such mappings.
        adapters: ``batch``, ``criterion``, ``metrics``, ``logging``, for every stage; or by stage
            such mappings.
        dataloaders: Loaders by stage (``train``, ``val``, ``test``, ``predict``).
        level: For a gradient-based weighting, which gradients it is given: those of all shared
            ``parameters``, of the ``representation``, or of the ``last_shared`` layer; the method's
            default if None.
        refresh_every: For a gradient-based weighting, the number of optimizer steps for which its weights
            are kept before they are computed again.
        scale_heads: Whether the task's weight also scales the gradients of parameters that only this task
            uses; the method's default if None.
        on_nonfinite: What happens if a training loss or a gradient is NaN or infinite: ``stop`` ends the
            run; ``skip`` skips the step and counts it, at the cost of two device synchronisations per step.

    Raises:
        UserError: If an argument cannot be used.

    Attributes:
        names: The tasks, in order.
        predicts_targets: Whether `predict_step` returns the targets too; False unless it is set.
        latest: The last value of each log key. The values of an epoch, and of a validation or a test, are
            forgotten when the next one begins.
        guard: Keeps the optimizer from steps whose gradients are not finite.
        task_backward: Fills ``.grad`` for a `polytask.losses.MultiTaskLoss`; None for other criteria.
        record: The losses and metrics of each stage. Checkpoints hold the metrics' tensors under this name.

    Example:
        >>> import functools
        >>> from polytask.losses import MultiTaskLoss
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
            raise UserError("on_nonfinite", "must be 'stop' or 'skip'", repr(on_nonfinite))
        self.model = model
        own_metrics = by_stage(metrics, "metrics")
        self.criterion = criterion_for(model, criterion, measured_tasks(own_metrics))
        single = isinstance(criterion, nn.modules.loss._Loss) and not getattr(model, "task_names", None)
        # In a tuple, since it is a submodule already.
        self._single_loss = (criterion,) if single else None
        self.task_backward = TaskBackward.of(model, self.criterion, level, refresh_every, scale_heads)
        self.optimizer_factory = OptimizerFactory.of(optimizer)
        self.scheduler_factory = SchedulerFactory.of(scheduler)
        self.names = task_names(model, self.criterion, own_metrics)
        self.adapters = adapters_by_stage(adapters)
        check_head_order(model, self.names, self.adapters)
        self.penalty = penalty_of(model)
        auxiliary = () if self.penalty is None else (SHARING,)
        self.record = StageLog(
            self.names, own_metrics, self.adapters, auxiliary, has_objective(self.criterion)
        )
        self.dataloaders = loaders_by_stage(dataloaders)
        self.on_nonfinite = on_nonfinite
        self.guard = StepGuard(on_nonfinite == "skip")
        self._graph_check = GraphCheck()
        self._reached = False
        self._saved_buffers = SavedBuffers(model)
        self._evaluation_faults = EvaluationFaults(self.names)
        self.latest: dict[str, float] = {}
        self.labelled_tasks: set[str] = set()
        self.predicts_targets = False
        self._predicted: PredictedRows | None = None
        self._steps_next = False
        self._logged_step = 0
        self._optimization: Optimization | None = None
        self._resumption: Resumption | None = None

    @property
    def skipped(self) -> int:
        """The training steps without a label, or with a loss or gradient that was not finite."""
        return self.guard.skipped

    # ---- what can be known before data --------------------------------------------------------

    def log_keys(self, stages: Iterable[str] = STAGES[:3]) -> list[str]:
        """Every key that these stages log at the end of an epoch.

        Args:
            stages: Stages that have data.
        """
        return self.record.log_keys(stages, self.loader_names(self.dataloaders))

    def loader_names(self, dataloaders: Mapping[str, Any]) -> dict[str, tuple[str, ...]]:
        """By stage the names of its loaders, if it has several.

        Args:
            dataloaders: Loaders by stage, or what a config gives for them.

        Raises:
            UserError: If a name cannot stand in a log key.
        """
        return {
            stage: loader_names(dataloaders[stage], stage, self.names)
            for stage in ("val", "test")
            if stage in dataloaders
        }

    def main_metrics(self, stage: str) -> list[str]:
        """``<task>/<Metric>`` for the first metric of each task.

        Args:
            stage: ``train``, ``val`` or ``test``.
        """
        first: dict[str, str] = {}
        for key in self.record.of(stage).log_keys():
            first.setdefault(key.split("/")[0], key)
        return list(first.values())

    def problems(
        self,
        stages: Iterable[str],
        callbacks: Iterable[Any] = (),
        dataloaders: Mapping[str, Any] | None = None,
        limit_val_batches: float | None = None,
    ) -> list[UserError]:
        """The errors in monitors, parameter groups and transforms, found before any data is read.

        Args:
            stages: Stages that have data; only ``train`` and ``val`` log during a fit.
            callbacks: Callbacks whose ``monitor`` must be a key that is logged.
            dataloaders: Loaders by stage, or what a config gives for them; the system's if None.
            limit_val_batches: The trainer's; 0 runs no validation.
        """
        try:
            loaders = self.loader_names(self.dataloaders if dataloaders is None else dataloaders)
        except UserError as error:
            return [error]
        stages, monitors = list(stages), monitors_of(callbacks)
        if self.scheduler_factory is not None:
            monitors.append(("scheduler", self.scheduler_factory.monitor))
        logging = [stage for stage in stages if stage in ("train", "val")]
        unlimited = limit_val_batches is None or limit_val_batches != 0
        found = [] if unlimited or "val" not in logging else unvalidated(monitors)
        refused = {error.where for error in found}
        monitors = [one for one in monitors if f"{one[0]}.monitor" not in refused]
        # Another forward than that of `MultiTaskLoss` may return losses under any name.
        any_loss = type(self.criterion).forward is not MultiTaskLoss.forward
        found += monitor_problems(
            monitors,
            self.record.log_keys(logging, loaders),
            lambda key: self.record.may_log(key, logging, any_loss, loaders),
        )
        for check in (
            self._check_transforms,
            partial(self.record.check_arguments, stages),
            self._check_optimizers,
        ):
            try:
                check()
            except UserError as error:
                found.append(error)
        return found

    def _check_transforms(self) -> None:
        check_transforms(self.adapters, self.names)

    def _check_optimizers(self) -> None:
        # During a fit they are there, and what is frozen may have changed since.
        if self.optimizer_factory is not None and self._optimization is None:
            self._made_optimization()

    # ---- one batch ----------------------------------------------------------------------------

    def forward(self, inputs: Any, tasks: Any = None) -> Any:
        """The model's own forward; task ids or names are passed on if given."""
        return self.model(inputs) if tasks is None else self.model(inputs, tasks)

    def on_before_batch_transfer(self, batch: Any, dataloader_idx: int) -> Batch:
        """Find inputs and targets in the batch and count its labels while it is on the host."""
        stage = self.trainer.state.stage
        assert stage is not None
        return self.adapt(batch, _STAGE[stage])

    def transfer_batch_to_device(self, batch: Batch, device: torch.device, dataloader_idx: int) -> Batch:
        """Move the batch."""
        return batch.to(device)

    def adapt(self, batch: Any, stage: str) -> Batch:
        """Inputs, targets and task ids of a batch, its labels counted.

        Args:
            batch: What the stage's loader yields.
            stage: ``train``, ``val``, ``test`` or ``predict``.
        """
        if isinstance(batch, Batch):
            return batch
        need_targets = stage != "predict" or self.predicts_targets
        adapted: Batch = self.adapters[stage]["batch"](
            batch, self.names, self._ignore_index(), need_targets=need_targets
        )
        if stage != "predict":
            adapted.columns = self.adapters[stage]["metrics"].columns(batch)
        return adapted

    def _ignore_index(self) -> Mapping[str, int] | None:
        return self.criterion.measurement.ignore_index if isinstance(self.criterion, MultiTaskLoss) else None

    def outputs(self, batch: Batch) -> Any:
        """The model's outputs by task; as the model returns them if the tasks have no names.

        Args:
            batch: An adapted batch.

        Raises:
            UserError: If the model fails on the inputs, or returns neither a dict nor a list by task.
        """
        return outputs_by_task(self.model, batch, self.names)

    def _losses(self, batch: Batch, stage: str) -> tuple[Any, Tensor, dict[str, Tensor]]:
        """Outputs, total and losses by task."""
        outputs = self.outputs(batch)
        if self._single_loss is not None:
            check_served(self._single_loss[0], self.names, outputs)
        adapter: CriterionAdapter = self.adapters[stage]["criterion"]
        total, losses = adapter(self.criterion, batch.inputs, outputs, batch.targets)
        # Without a label on any rank there is no step, and nothing to add to.
        idle = isinstance(batch.targets, Targets) and not losses
        return outputs, *with_penalty(None if idle else self.penalty, total, losses)

    def _step(self, batch: Any, stage: str, loader: int = 0) -> Tensor | None:
        """One batch's total, its losses and rows kept for the logs; None if there is nothing to minimise."""
        batch = self.adapt(batch, stage)
        counted = isinstance(batch.targets, Targets)
        if counted and not batch.targets and not self._joined(stage):
            return None
        outputs, total, losses = self._losses(batch, stage)
        if counted and not losses and not batch.targets:
            return None
        if counted and stage == "train":
            # A task may have all of its labels on other ranks.
            self.labelled_tasks.update(batch.targets, set(self.names).intersection(losses))
        if stage == "train":
            self._check_graphs(batch, total, losses)
            if not self._accepts(batch, total, losses):
                return None
        self.record.add(stage, batch, outputs, total, losses, self.criterion, self.global_step, loader)
        if stage == "train" and self.task_backward is not None:
            self.task_backward.note(batch, total, losses)
        return total

    def _check_graphs(self, batch: Batch, total: Tensor, losses: Mapping[str, Tensor]) -> None:
        """Other losses than those that the total is made of may be returned for the logs, without a graph."""
        if not torch.is_grad_enabled():
            return
        counted = isinstance(batch.targets, Targets)
        if counted and not batch.targets:
            # The total is that of other processes.
            return
        detached: list[str] = []
        if isinstance(self.criterion, MultiTaskLoss) and self.criterion.combination.own_total and counted:
            measured = self.criterion.measurement.detached
            known = [name for name in self.names if name in batch.targets and name in losses]
            detached = [name for name in known if name in measured or not losses[name].requires_grad]
        if detached or not total.requires_grad:
            frozen = any(not parameter.requires_grad for parameter in self.model.parameters())
            self._graph_check.check(detached, len(batch.targets) if counted else 0, total, frozen)

    def _accepts(self, batch: Batch, total: Tensor, losses: dict[str, Tensor]) -> bool:
        self.guard.batch = batch
        # The losses of a `MultiTaskLoss` are those of all processes.
        apart = self.task_backward is None
        if not self.guard.skip or self._all_finite(total, apart):
            return True
        self.guard.refuse(total, losses, self.global_step, self.trainer)
        self._saved_buffers.restore()
        return False

    def _all_finite(self, total: Tensor, apart: bool) -> bool:
        bad = ~total.detach().isfinite().all()
        return not (any_process(bad, self.trainer) if apart else bool(bad))

    def _joined(self, stage: str) -> bool:
        """Whether other ranks may have labels if this one has none."""
        return stage == "train" and self.task_backward is not None and self.task_backward.ranks is not None

    # ---- from a batch to .grad ----------------------------------------------------------------

    def training_step(self, batch: Any, batch_idx: int) -> Tensor | None:
        """One step's total loss, or None if no task has a label or the loss is skipped."""
        if self.task_backward is not None:
            self.task_backward.begin()
        if self.guard.skip:
            self._saved_buffers.save()
        total = self._step(batch, "train")
        if total is not None:
            return total
        self.guard.skipped += 1
        if self.task_backward is None or not self.task_backward.open:
            return None
        # The backward has to be called: other ranks and earlier batches wait for it.
        return torch.zeros((), device=self.device, requires_grad=True)

    def backward(self, loss: Tensor, *args: Any, **kwargs: Any) -> None:
        """Fill ``.grad`` as the weighting prescribes, inside Lightning's automatic optimization.

        Args:
            loss: The total, as precision and accumulation have scaled it.
        """
        if self.task_backward is None:
            super().backward(loss, *args, **kwargs)
            return
        scaled = getattr(self.trainer.precision_plugin, "scaler", None) is not None
        last = self._steps_next
        self.task_backward.number(self.global_step)
        self.task_backward.backward(loss, last, self.trainer.accumulate_grad_batches, scaled)
        if last:
            self.task_backward.average(self.parameters())

    def on_before_optimizer_step(self, optimizer: torch.optim.Optimizer) -> None:
        """Keep the step's weights for the loggers, before the step changes them."""
        every: int = self.trainer.log_every_n_steps  # type: ignore[attr-defined]
        if self.task_backward is not None and every and (self.global_step + 1) % every == 0:
            self.task_backward.keep_weights()

    def optimizer_step(
        self, epoch: int, batch_idx: int, optimizer: Any, optimizer_closure: Any = None
    ) -> None:
        """One step of the optimizer, after which the weighting receives the losses."""
        self._steps_next = True
        self.guard.begin()
        try:
            super().optimizer_step(epoch, batch_idx, optimizer, partial(self._evaluate, optimizer_closure))
        except SkippedStepError:
            self._undo()
            return
        finally:
            self._steps_next = False
        self.guard.end()
        if self.task_backward is not None:
            self.task_backward.after_step(self.recompute_losses)

    def _evaluate(self, closure: Callable[[], Tensor | None]) -> Tensor:
        """The step's forward and backward; the optimizer does not step if the gradients cannot be used."""
        total = closure()
        parameters = dict(self.named_parameters())
        if total is not None and not self._reached:
            # A graph may end at inputs alone. A step without a label has none.
            waits = self.task_backward is not None and self.task_backward.engine.begun
            self._reached = waits or self._graph_check.check_reached(self.model.parameters())
        # A loss scaler looks for gradients that are not finite itself, and lowers its scale.
        if getattr(self.trainer.precision_plugin, "scaler", None) is None or total is None:
            self.guard.evaluated(
                total, parameters, self.global_step, self.trainer, self._culprits, self._explanation
            )
        # The last batch of the step may lack labels: the gradients are those of the batches before it.
        return torch.zeros((), device=self.device) if total is None else total

    def _culprits(self, names: Sequence[str]) -> Sequence[str]:
        if self.task_backward is None:
            return ()
        return self.task_backward.culprits([self.get_parameter(name) for name in names])

    def _weighting_fault(self) -> RunError | None:
        """The weighting's error for values that are not finite; losses explain it, if they are not either.

        Raises:
            UserError: If a loss was out of the weighting's range.
        """
        try:
            if self.task_backward is not None:
                self.task_backward.check()
        except RunError as error:
            return error
        return None

    def _explanation(self) -> RunError | None:
        """The error for losses that are not finite, which explain gradients that are not."""
        self._weighting_fault()
        return self._loss_error()

    def _loss_error(self) -> RunError | None:
        bad = self.record.meters["train"].first_bad()
        if bad is None:
            return None
        batch = self.guard.batch
        rows = [] if batch is None or bad[1] != self.global_step else bad_rows(batch, bad[0])
        return nonfinite_losses(*bad, self.trainer, rows)

    def _undo(self) -> None:
        """Leave everything as it was before a step that is skipped."""
        for parameter in self.parameters():
            parameter.grad = None
        self.guard.restore(self.trainer.optimizers[0])
        self._saved_buffers.restore()
        if self.task_backward is not None:
            self.task_backward.undo()

    def recompute_losses(self, batch: Batch) -> TaskLosses:
        """The losses of a training batch at the current parameters, without gradient and without a log.

        Args:
            batch: An adapted batch.
        """
        assert self.task_backward is not None
        with self.task_backward.unobserved(), self.trainer.precision_plugin.train_step_context():
            self._losses(batch, "train")
            return self.task_backward.last_losses()

    # ---- a fit --------------------------------------------------------------------------------

    def setup(self, stage: str) -> None:
        """Check what several processes need before the strategy prepares the model.

        Raises:
            UserError: If the model has lazy modules, whose shapes no process knows yet.
        """
        if stage == "fit" and self.trainer.world_size > 1:
            check_initialized(self.model)

    def on_fit_start(self) -> None:
        """Raise the first error that can be known before training; silence warnings that are expected.

        Raises:
            UserError: If the trainer, the loaders, the callbacks or a checkpoint do not fit.
        """
        callbacks = self.trainer.callbacks  # type: ignore[attr-defined]
        limit = self.trainer.limit_val_batches
        for problem in self.problems(self.dataloaders or STAGES, callbacks, limit_val_batches=limit):
            raise problem
        silence(Silence.SYSTEM)
        if self.trainer.ckpt_path is None:
            self._resumption = None
        if self._resumption is not None and self._optimization is not None:
            self._resumption.prepare(self._optimization, str(self.trainer.ckpt_path))
        if self.task_backward is not None:
            self.task_backward.check_batches(self.trainer.accumulate_grad_batches)
            if self.trainer.world_size > 1:
                check_strategy(self.trainer.strategy, self.model, self.task_backward)

    def on_train_start(self) -> None:
        """Start the task backward, together with the other processes if there are any."""
        self._apply_changes()
        if self.task_backward is None:
            return
        self.task_backward.start()
        if not isinstance(self.trainer.strategy, DDPStrategy):
            return
        wrapped = self.trainer.strategy.model
        assert isinstance(wrapped, DistributedDataParallel)
        self.task_backward.join(Ranks(self.device), self.model if wrapped.broadcast_buffers else None)
        # Its reducer would wait for parameters that this rank's tasks do not reach.
        wrapped.require_backward_grad_sync = False

    def _apply_changes(self) -> None:
        """Let what was changed since the checkpoint take effect in the optimizer and its scheduler."""
        resumption, self._resumption = self._resumption, None
        if resumption is None or self._optimization is None or self.optimizer_factory is None:
            return
        in_use = [config.scheduler for config in self.trainer.lr_scheduler_configs]
        steps = {"step": self.trainer.global_step, "epoch": trained_epochs(self.trainer)}
        resumption.apply(self._optimization, self.optimizer_factory, self.scheduler_factory, steps, in_use)

    def on_train_epoch_start(self) -> None:
        """Check the number of batches per step again, since callbacks may change it."""
        self._forget_values("train", "val")
        self.guard.begin_epoch()
        if self.task_backward is not None:
            self.task_backward.check_batches(self.trainer.accumulate_grad_batches)

    def on_train_batch_end(self, outputs: Any, batch: Any, batch_idx: int) -> None:
        """Hand losses, metrics and weights to the loggers every ``log_every_n_steps`` steps."""
        every: int = self.trainer.log_every_n_steps  # type: ignore[attr-defined]
        step = self.global_step
        if every and step % every == 0 and step != self._logged_step:
            self._logged_step = step
            self._log_step(step)

    def _log_step(self, step: int) -> None:
        values = self.record.step_values(self._read_losses(), self.criterion)
        if self.task_backward is not None:
            values |= {f"weights/{name}": weight for name, weight in self.task_backward.weights.items()}
        for i, group in enumerate(self.trainer.optimizers[0].param_groups):
            values[f"lr/{group.get('name', i)}"] = float(group["lr"])
        self.latest |= values
        for logger in self.loggers:
            # Lightning numbers an epoch's values from 0 as well.
            logger.log_metrics(values, step=step - 1)

    def _read_losses(self) -> dict[str, float]:
        """The mean losses since the last reading; an error if one is not finite."""
        losses = self.record.meters["train"].read()
        fault = self._weighting_fault()
        problem = (None if self.guard.skip else self._loss_error()) or fault
        if problem is not None:
            raise problem
        self.guard.check(self.trainer)
        return losses

    def on_validation_start(self) -> None:
        """Check the losses before validation: no checkpoint may be saved after one that is not finite."""
        if not self.trainer.sanity_checking and self.trainer.state.fn == "fit":
            self._read_losses()

    def on_train_epoch_end(self) -> None:
        """Log the epoch's values; raise if a task had no label in a whole epoch."""
        self._read_losses()
        self.guard.check_epoch(lambda: every_step_skipped(self.trainer))
        if self.task_backward is not None:
            if self._saw_all_data():
                check_labels(self.names, self.labelled_tasks)
            means = self.record.meters["train"].epoch(self._adding_up())
            self.task_backward.on_epoch_end(means, self.device)
        if self.skipped:
            self.log("train/skipped/epoch", float(self.skipped))
        self._log_epoch("train")

    def on_train_end(self) -> None:
        """Report what was only counted in the training; let models report what it was too short for."""
        if self.trainer.is_global_zero:
            for module in self.model.modules():
                if callable(ended := getattr(module, "on_training_end", None)):
                    ended()
        if self.task_backward is not None and self.trainer.is_global_zero:
            self.task_backward.weighting.conclude()

    def _saw_all_data(self) -> bool:
        """Whether the epoch was not cut short by ``max_steps``, a limit or a dry run."""
        limit = self.trainer.limit_train_batches
        return self.trainer.is_last_batch and isinstance(limit, float) and limit == 1.0

    # ---- evaluation and prediction ------------------------------------------------------------

    def validation_step(self, batch: Any, batch_idx: int, dataloader_idx: int = 0) -> None:
        """Keep the batch's losses and rows."""
        self._step(batch, "val", dataloader_idx)

    def test_step(self, batch: Any, batch_idx: int, dataloader_idx: int = 0) -> None:
        """Keep the batch's losses and rows."""
        self._step(batch, "test", dataloader_idx)

    def on_validation_epoch_start(self) -> None:
        """Forget the values of the last validation, and keep those of several loaders apart."""
        self._forget_values("val")
        self.record.divide("val", self._loaded("val"))

    def on_test_epoch_start(self) -> None:
        """Forget the values of the last test, and keep those of several loaders apart."""
        self._forget_values("test")
        self.record.divide("test", self._loaded("test"))

    def _loaded(self, stage: str) -> tuple[str, ...]:
        """The names of the loaders that the trainer goes through, which may not be the system's own."""
        given = self.trainer.val_dataloaders if stage == "val" else self.trainer.test_dataloaders
        return loader_names(given, stage, self.names)

    def _forget_values(self, *stages: str) -> None:
        def is_kept(key: str) -> bool:
            return not (key.endswith("/epoch") and key.split("/")[0] in stages)

        self.latest = {key: value for key, value in self.latest.items() if is_kept(key)}

    def on_validation_epoch_end(self) -> None:
        """Log the epoch's values."""
        self._log_epoch("val")

    def on_test_epoch_end(self) -> None:
        """Log the epoch's values."""
        self._log_epoch("test")

    def on_predict_start(self) -> None:
        """Follow the loaders, so that each prediction is known by its row."""
        self._predicted = PredictedRows(self.trainer.predict_dataloaders, self.names)

    def predict_step(self, batch: Any, batch_idx: int, dataloader_idx: int = 0) -> dict[str, Any]:
        """Predictions by task after the logging adapter's transforms, and the rows that they belong to.

        Returns:
            ``outputs`` by task; ``size``, the number of rows in the batch; ``rows``, with task ids those of
            each task; ``loader`` and ``row``, the name of the loader if there are several, and the rows'
            numbers in its data, None if it does not tell; ``indexed``, whether Lightning does; ``ids``, the
            user's, by column; and ``targets``, if `predicts_targets`, by task with a mask of what is missing.
        """
        batch = self.adapt(batch, "predict")
        loader, row = (None, None) if self._predicted is None else self._predicted.next(batch, dataloader_idx)
        written = predictions(self.outputs(batch), self.adapters["predict"]["logging"])
        return {
            "outputs": written,
            "rows": batch.rows,
            "size": batch.size,
            "loader": loader,
            "row": row,
            "indexed": self._predicted is not None and self._predicted.indexed(dataloader_idx),
            "ids": batch.ids,
            "targets": self._labels_of(batch) if self.predicts_targets else {},
        }

    def _labels_of(self, batch: Batch) -> dict[str, tuple[Tensor, Tensor | None]]:
        targets = batch.targets if isinstance(batch.targets, Mapping) else {}
        ignored = self._ignore_index() or {}
        return {
            name: (target, is_missing(target, ignored.get(name, IGNORE_INDEX)))
            for name, target in targets.items()
            if isinstance(target, Tensor) and target.ndim
        }

    def _log_epoch(self, stage: str) -> None:
        parallel = self.trainer.world_size > 1
        values = self.record.epoch_values(stage, self.criterion, self._adding_up())
        if self.trainer.sanity_checking:
            return
        if self.trainer.is_global_zero:
            for sentence in self.record.notes[stage]:
                warnings.warn(sentence, stacklevel=2)
        self.latest |= values
        callbacks: list[pl.Callback] = self.trainer.callbacks  # type: ignore[attr-defined]
        unlabelled = [f"{stage}/loss/{name}/epoch" for name in self.record.unlabelled[stage]]
        if stage != "train" and self.trainer.is_global_zero:
            labelled = {key: value for key, value in values.items() if key not in unlabelled}
            self._evaluation_faults.say(stage, labelled, self.current_epoch)
        if self.trainer.state.fn == "fit":
            if stage == "val":
                self._evaluation_faults.prepare_checkpoints(callbacks, values, self.trainer)
            self.record.epochs[stage] = self.current_epoch
        if self.trainer.state.fn == "fit" and self.scheduler_factory is not None:
            step_plateaus(self.trainer.lr_scheduler_configs, self.scheduler_factory.monitor, values)
        self.log_dict(values, sync_dist=parallel)

    def _adding_up(self) -> Callable[[Tensor], Tensor] | None:
        """Adds a tensor up over all processes; None if there is one."""
        return self._add_up if self.trainer.world_size > 1 else None

    def _add_up(self, values: Tensor) -> Tensor:
        total = self.trainer.strategy.reduce(values.to(self.device), reduce_op="sum")
        assert isinstance(total, Tensor)
        return total

    # ---- optimizers and data ------------------------------------------------------------------

    def configure_optimizers(self) -> Any:
        """The optimizer of the model's and the criterion's parameters, and its scheduler."""
        self._optimization = self._made_optimization()
        return self._optimization.lightning_config

    def _made_optimization(self) -> Optimization:
        return Optimization.of(self.optimizer_factory, self.scheduler_factory, self.model, self.criterion)

    def lr_scheduler_step(self, scheduler: Any, metric: Any) -> None:
        """Step a scheduler; a plateau scheduler steps when its key is logged instead."""
        if not isinstance(scheduler, ReduceLROnPlateau):
            super().lr_scheduler_step(scheduler, metric)

    def train_dataloader(self) -> Any:
        """The training loader, in a form that resumes in the middle of an epoch.

        With several processes, each has its share of the samples, in the loader's order unless that is
        random. With a few batches to overfit, it is returned unchanged, since Lightning replaces its sampler.
        """
        loader = loader_of(self.dataloaders, "train")
        overfit: float = self.trainer.overfit_batches  # type: ignore[attr-defined]
        return loader if overfit else replayable(own_share(self.trainer, loader))

    def val_dataloader(self) -> Any:
        """The validation loader, in the order of its data; none if not given."""
        return in_order(loader_of(self.dataloaders, "val"), False) if "val" in self.dataloaders else []

    def test_dataloader(self) -> Any:
        """The test loader, in the order of its data."""
        return in_order(loader_of(self.dataloaders, "test"), False)

    def predict_dataloader(self) -> Any:
        """The loader of the rows to predict, in the order of their data."""
        return in_order(loader_of(self.dataloaders, "predict"))

    # ---- resume -------------------------------------------------------------------------------

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Keep the epoch's accumulators, so that a resumed epoch logs what it would have logged.

        Raises:
            RunError: If a loss or a weight is not finite: training can continue from whatever is saved.
        """
        self._refuse_nonfinite()
        if self._optimization is not None:
            checkpoint[GIVEN] = self._optimization.given
        own = {"record": self.record.epoch_state(), "labelled": sorted(self.labelled_tasks)}
        checkpoint["polytask_epoch"] = {
            **own,
            **self._of_every_rank(own),
            "skipped": self.skipped,
            "logged_step": self._logged_step,
            "balance": None if self.task_backward is None else self.task_backward.state_dict(),
        }

    def _of_every_rank(self, own: dict[str, Any]) -> dict[str, Any]:
        """The part of the state that differs between processes, by rank; nothing if there is one."""
        if self.trainer.world_size == 1:
            return {}
        return {"ranks": Ranks(self.device).gather(move_data_to_device(own, torch.device("cpu")))}

    def _refuse_nonfinite(self) -> None:
        error = None if self.guard.skip else self._loss_error()
        if error is not None:
            raise error
        check_weights(self, self.global_step)

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Load the accumulators and what the optimizer was given, and be of the precision of the weights."""
        self._resumption = Resumption.of(checkpoint)
        if self._trainer is not None:
            widen(self.trainer, self)
        saved = checkpoint.get("polytask_epoch")
        if saved is not None:
            ranks = saved.get("ranks", [saved])
            own = ranks[self.global_rank] if self.global_rank < len(ranks) else saved
            self.record.load_epoch_state(own["record"])
            self.guard.skipped = saved["skipped"]
            self.labelled_tasks = set(own["labelled"])
            self._logged_step = saved["logged_step"]
            if self.task_backward is not None:
                self.task_backward.load_state_dict(saved["balance"])
