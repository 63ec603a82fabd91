"""Records of inter-task affinity."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar

import pytorch_lightning as pl
import torch
from torch import Tensor, nn
from torch.func import functional_call

from polytask._checks import check_number
from polytask._errors import UserError
from polytask.diagnostics._columns import AFFINITY, Columns
from polytask.diagnostics._gradients import GramianRecorder
from polytask.gradients import ObservedStep
from polytask.losses import TaskLosses
from polytask.system import System
from polytask.system._task_backward import TaskBackward
from polytask.weighting._base import Gradients


class Affinity(GramianRecorder):
    r"""Records how a step on one task changes the losses of the others, in ``affinity.parquet``.

    With the shared parameters :math:`\theta`, the losses :math:`L` and the learning rate :math:`\eta`,

    .. math:: Z_{i \to j} = \frac{L_j(\theta) - L_j(\theta - \eta \nabla L_i(\theta))}{|L_j(\theta)|}
              \approx \frac{\eta\, \nabla L_i^\top \nabla L_j}{|L_j|} .

    Above 0, a step on task *i* lowers the loss of task *j*. The left form is recorded as ``lookahead``, the
    right one, which is free if the weighting computes the parameters' gradients, as ``first_order``. The
    lookahead costs a forward without gradient for each task and one more in a recorded step; random layers
    use the same random numbers in each of them. `read_affinity` computes means over training, and
    `polytask.diagnostics.group_tasks` proposes which tasks to train together.

    The training does not change in any bit: buffers and torch's global random state (of the CPU and of the
    model's first GPU) are restored. Other state that the model's forward changes is not restored: a
    ``torch.Generator`` of the model, Python's or NumPy's random state, a counter that is a plain attribute.
    For such a model set ``lookahead=False``, which needs no forward.

    Args:
        every: The number of optimizer steps per recorded step.
        lookahead: Whether the lookahead is recorded too.
        learning_rate: η; the optimizer's learning rate of the first shared parameter if None.
        folder: The folder of the file; ``records`` in the run's folder if None.

    Raises:
        UserError: If an argument is invalid; at the start of a fit, if the criterion is not a
            `polytask.losses.MultiTaskLoss`.

    Example:
        >>> Affinity(every=20, lookahead=False).file
        'affinity.parquet'

    Reference:
        Fifty, Amid, Zhao, Yu, Anil, Finn. Efficiently Identifying Task Groupings for Multi-Task Learning.
        NeurIPS 2021. Equation 1.

    Deviations:
        The lookahead is a plain gradient step, whatever the optimizer. Gradients are those of the losses
        times their ``loss_weights``. The paper divides by the loss and not by its absolute value, which
        changes the sign for losses below 0. If a loss is exactly 0 there is no affinity, and means exclude
        it.
    """

    file: ClassVar[str] = "affinity.parquet"
    columns: ClassVar[Columns] = AFFINITY

    def __init__(
        self,
        every: int = 10,
        lookahead: bool = True,
        learning_rate: float | None = None,
        folder: str | Path | None = None,
    ) -> None:
        super().__init__(every, folder)
        self.lookahead = lookahead
        rate = learning_rate
        self.learning_rate = None if rate is None else check_number(rate, "Affinity.learning_rate", above=0)
        self._batch: Any = None

    def notes(self, task_backward: TaskBackward) -> Mapping[str, str]:
        """The numbers of shared parameters and of each task's own parameters."""
        shared, own = task_backward.engine.sizes()
        return {"shared_parameters": str(shared), "task_parameters": json.dumps(own)}

    def level_of(self, trainer: pl.Trainer, system: System, task_backward: TaskBackward) -> Gradients:
        """The parameters: affinity is about steps on them."""
        return "parameters"

    def on_train_batch_start(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, batch: Any, batch_idx: int
    ) -> None:
        """Keep the batch for the lookahead."""
        super().on_train_batch_start(trainer, pl_module, batch, batch_idx)
        self._batch = batch if self.lookahead and self.due(trainer) else None

    def look(self, trainer: pl.Trainer, system: System, seen: ObservedStep) -> None:
        """Keep both forms."""
        rate = self._rate(trainer, seen)
        names = seen.names
        keys = [("first_order", task, other) for task in names for other in names]
        values = [(rate * seen.gramian / seen.losses.to(seen.gramian).abs()).reshape(-1)]
        if self._batch is not None:
            ahead = _Ahead(system, system.adapt(self._batch, "train"))
            before = ahead.at({})
            for task in names:
                steps = {
                    parameter: rate * step for parameter, step in seen.gradient(task) if step is not None
                }
                after = ahead.at(steps)
                keys += [("lookahead", task, other) for other in before.names]
                gains = (before.means - after.means) / before.means.abs()
                values.append(gains.to(seen.gramian))
        self.add(trainer, keys, torch.cat(values))

    def _rate(self, trainer: pl.Trainer, seen: ObservedStep) -> float:
        if self.learning_rate is not None:
            return self.learning_rate
        groups = [group for optimizer in trainer.optimizers for group in optimizer.param_groups]
        of = {id(parameter): group["lr"] for group in groups for parameter in group["params"]}
        rates = [float(of[id(parameter)]) for parameter in seen.shared if id(parameter) in of]
        if not rates:
            raise UserError(
                "Affinity", "a trained shared parameter is required", "none", "Give learning_rate"
            )
        return rates[0]

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Write, and release the batch."""
        self._batch = None
        super().on_train_end(trainer, pl_module)


class _Ahead(nn.Module):
    """The losses of a batch with other parameters; the model and random states do not change."""

    def __init__(self, system: System, batch: Any) -> None:
        super().__init__()
        self.model = system.model
        self._recompute = system.recompute_losses
        self._batch = batch

    def forward(self) -> TaskLosses:
        """The losses with the current parameters."""
        return self._recompute(self._batch)

    def at(self, steps: Mapping[Tensor, Tensor]) -> TaskLosses:
        """The losses after a step.

        Args:
            steps: The values to subtract, by parameter.
        """
        values = {name: buffer.clone() for name, buffer in self.named_buffers()}
        with torch.no_grad():
            for name, parameter in self.named_parameters():
                if parameter in steps:
                    values[name] = parameter - steps[parameter].view_as(parameter).to(parameter)
        devices = [value.device for value in self.parameters() if value.device.type == "cuda"]
        with torch.random.fork_rng(devices=devices[:1]):
            found: TaskLosses = functional_call(self, values)
        return found
