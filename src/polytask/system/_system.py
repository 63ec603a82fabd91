"""System: model, criterion, metrics, adapters, loaders and optimizer as one LightningModule."""

from collections.abc import Callable, Mapping
from typing import Any

import torch
from pytorch_lightning.strategies import DDPStrategy
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from polytask._distributed import Ranks
from polytask._errors import UserError
from polytask._lightning._noise import Silence, silence
from polytask.adapters import LoggingAdapter
from polytask.batch import Batch
from polytask.system._assembly import Assembly
from polytask.system._nonfinite import check_weights, nonfinite
from polytask.system._stages import STAGES
from polytask.system._task_backward import Balance


class System(Assembly):
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
        silence(Silence.SYSTEM)
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
            if name not in self.labelled_tasks:
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
            "labelled": sorted(self.labelled_tasks),
            "logged_step": self._logged_step,
            "balance": None if self.balance is None else self.balance.saved(),
        }

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Take the epoch's accumulators up again."""
        saved = checkpoint.get("polytask_epoch")
        if saved is not None:
            self.record.restore(saved["record"])
            self.skipped = saved["skipped"]
            self.labelled_tasks = set(saved["labelled"])
            self._logged_step = saved["logged_step"]
            if self.balance is not None:
                self.balance.restore(saved["balance"])
