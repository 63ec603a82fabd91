"""Records of inter-task affinity."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar

import pytorch_lightning as pl
import torch
from torch import Tensor, nn
from torch.func import functional_call

from polytask._errors import UserError
from polytask.diagnostics._columns import AFFINITY, Columns
from polytask.diagnostics._gradients import GramianRecorder
from polytask.gradients._watch import Seen
from polytask.losses import TaskLosses
from polytask.system import System
from polytask.system._task_backward import Balance
from polytask.weighting._base import Gradients


class Affinity(GramianRecorder):
    r"""Records how a step on one task changes the losses of the others, in ``affinity.parquet``.

    With the shared parameters :math:`\theta`, the losses :math:`L` and the learning rate :math:`\eta`,

    .. math:: Z_{i \to j} = \frac{L_j(\theta) - L_j(\theta - \eta \nabla L_i(\theta))}{|L_j(\theta)|}
              \approx \frac{\eta\, \nabla L_i^\top \nabla L_j}{|L_j|} .

    Above 0, a step on task *i* lowers the loss of task *j*. The left form is recorded as ``lookahead``, the
    right one, which is free where the weighting measures the parameters' gradients, as ``first_order``. The
    lookahead costs a forward without gradient for each task and one more in a recorded step; random layers
    draw the same numbers in each of them. `read_affinity` takes means over training, and
    `polytask.diagnostics.group_tasks` proposes which tasks to train together.

    The training itself is the same to the last bit, as far as torch knows what a forward changes: buffers
    and torch's global random state (of the processor and of the model's first GPU) are as before. What else
    the model's forward changes goes on in each of the lookahead's: a ``torch.Generator`` of its own, Python's
    or numpy's random numbers, a counter that is a plain attribute. For such a model leave the lookahead out:
    without it there is no forward.

    Args:
        every: One optimizer step in so many is recorded.
        lookahead: Whether this form is recorded too.
        learning_rate: η; the optimizer's, for the first of the shared parameters, where None.
        folder: Where the file goes; ``records`` in the run's folder where None.

    Raises:
        UserError: Where an argument is no such thing; at the start of a fit, where the criterion is no
            `polytask.losses.MultiTaskLoss`.

    Example:
        >>> Affinity(every=20, lookahead=False).file
        'affinity.parquet'

    Reference:
        Fifty, Amid, Zhao, Yu, Anil, Finn. Efficiently Identifying Task Groupings for Multi-Task Learning.
        NeurIPS 2021. Equation 1.

    Deviations:
        The lookahead is a plain gradient step, whatever the optimizer. Gradients are those of the losses
        times their ``loss_weights``. The paper divides by the loss itself, not by its absolute value: for a
        loss below 0 its sign would say the opposite. Where a loss is exactly 0 there is no affinity, and
        means leave it out.
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
        if learning_rate is not None and not (isinstance(learning_rate, int | float) and learning_rate > 0):
            raise UserError("Affinity.learning_rate", "is a number above 0", repr(learning_rate))
        self.lookahead = lookahead
        self.learning_rate = learning_rate
        self._batch: Any = None

    def notes(self, balance: Balance) -> Mapping[str, str]:
        """How many parameters are shared, and how many each task has for itself."""
        shared, own = balance.engine.sizes()
        return {"shared_parameters": str(shared), "task_parameters": json.dumps(own)}

    def level_of(self, trainer: pl.Trainer, system: System, balance: Balance) -> Gradients:
        """The parameters, which a step changes."""
        return "parameters"

    def on_train_batch_start(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, batch: Any, batch_idx: int
    ) -> None:
        """Keep the batch for the lookahead."""
        super().on_train_batch_start(trainer, pl_module, batch, batch_idx)
        self._batch = batch if self.lookahead and self.due(trainer) else None

    def look(self, trainer: pl.Trainer, system: System, seen: Seen) -> None:
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

    def _rate(self, trainer: pl.Trainer, seen: Seen) -> float:
        if self.learning_rate is not None:
            return self.learning_rate
        groups = [group for optimizer in trainer.optimizers for group in optimizer.param_groups]
        of = {id(parameter): group["lr"] for group in groups for parameter in group["params"]}
        rates = [float(of[id(parameter)]) for parameter in seen.shared if id(parameter) in of]
        if not rates:
            raise UserError(
                "Affinity", "needs a shared parameter that is trained", "none", "Give learning_rate"
            )
        return rates[0]

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Write, and let the batch go."""
        self._batch = None
        super().on_train_end(trainer, pl_module)


class _Ahead(nn.Module):
    """The losses of a batch with other parameters; leaves the model and random states as they are."""

    def __init__(self, system: System, batch: Any) -> None:
        super().__init__()
        self.model = system.model
        self._measure = (system.balance, system._measure_again)
        self._batch = batch

    def forward(self) -> TaskLosses:
        """The losses at the parameters of the moment."""
        balance, measure = self._measure
        assert balance is not None
        return balance.measured_again(self._batch, measure)

    def at(self, steps: Mapping[Tensor, Tensor]) -> TaskLosses:
        """The losses after steps down.

        Args:
            steps: What is taken from parameters.
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
