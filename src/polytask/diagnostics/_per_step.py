"""Records of losses and weights."""

from pathlib import Path
from typing import Any, ClassVar

import pytorch_lightning as pl
import torch
from torch import Tensor

from polytask.diagnostics._columns import LOSSES, WEIGHTS, Columns
from polytask.diagnostics._recorder import Recorder
from polytask.losses._reported_weights import own_and_effective_weights


class WeightRecorder(Recorder):
    r"""Records the tasks' weights in ``weights.parquet``: those of the weighting, and the effective ones.

    With the total *L* and the loss :math:`L_i` of task *i*, which the weighting sees times its
    ``loss_weights`` :math:`c_i`, the weighting's own weight ``weight`` and ``effective_weight`` are

    .. math:: w_i = \frac{\partial L}{\partial (c_i L_i)}, \qquad
        \frac{\partial L}{\partial L_i} = c_i w_i.

    For a gradient-based weighting :math:`w_i` is the weight of the gradient of :math:`c_i L_i` in the update.

    Args:
        every: The number of optimizer steps per recorded step.
        folder: The folder of the file; ``records`` in the run's folder if None.

    Raises:
        UserError: If ``every`` is not a positive integer; at the start of a fit, if the criterion is not a
            `polytask.losses.MultiTaskLoss`.

    Example:
        >>> WeightRecorder(every=5).file
        'weights.parquet'
    """

    file: ClassVar[str] = "weights.parquet"
    columns: ClassVar[Columns] = WEIGHTS

    def __init__(self, every: int = 10, folder: str | Path | None = None) -> None:
        super().__init__(every, folder)

    def on_before_optimizer_step(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, optimizer: torch.optim.Optimizer
    ) -> None:
        """Record the step's weights before the step changes them."""
        if self.due(trainer):
            names, *weights = own_and_effective_weights(self.task_backward_of(pl_module).criterion)
            self.add(trainer, [(name,) for name in names], torch.stack(weights, dim=1))


class LossRecorder(Recorder):
    """Records the tasks' training losses in ``losses.parquet``, before ``loss_weights`` and weighting.

    The loss of a step is the mean over the labels of all its batches.

    Args:
        every: The number of optimizer steps per recorded step.
        folder: The folder of the file; ``records`` in the run's folder if None.

    Raises:
        UserError: If ``every`` is not a positive integer; at the start of a fit, if the criterion is not a
            `polytask.losses.MultiTaskLoss`.

    Example:
        >>> LossRecorder(every=5).file
        'losses.parquet'
    """

    file: ClassVar[str] = "losses.parquet"
    columns: ClassVar[Columns] = LOSSES

    def __init__(self, every: int = 10, folder: str | Path | None = None) -> None:
        super().__init__(every, folder)
        self._sums: dict[str, Tensor] = {}

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Begin with sums of 0."""
        super().on_train_start(trainer, pl_module)
        self._sums = {}

    def on_before_backward(self, trainer: pl.Trainer, pl_module: pl.LightningModule, loss: Tensor) -> None:
        """Add the batch's losses to the step's sums."""
        losses = self.task_backward_of(pl_module).losses
        if losses is None or not self.due(trainer):
            return
        both = torch.stack([losses.sums, losses.counts.to(losses.sums)]).detach()
        for name, own in zip(losses.names, both.unbind(1), strict=True):
            self._sums[name] = self._sums[name] + own if name in self._sums else own

    def on_before_optimizer_step(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, optimizer: Any
    ) -> None:
        """Record the means."""
        sums, self._sums = self._sums, {}
        if sums:
            total, count = torch.stack(list(sums.values())).unbind(1)
            self.add(trainer, [(name,) for name in sums], total / count)
