"""What a `polytask.System` predicts with, without Lightning."""

from collections.abc import Sequence
from typing import Any

from torch import nn

from polytask.adapters import LoggingAdapter
from polytask.batch import Batch
from polytask.system._forward import outputs_by_task, predictions


class TrainedModel(nn.Module):
    """Model, criterion and adapter of a `polytask.System` that predicts and does not train.

    The weights have the same names as those of the System, so that its checkpoints fit.

    Args:
        model: The model.
        criterion: The criterion; it is never called.
        names: The tasks, in order.
        adapter: What is predicted of an output.

    Example:
        >>> import torch
        >>> from polytask.losses import MultiTaskLoss
        >>> loss = MultiTaskLoss({"a": nn.MSELoss()})
        >>> trained = TrainedModel(nn.Linear(3, 1), loss, ["a"], LoggingAdapter())
        >>> sorted(trained.state_dict()), trained.predict_step(Batch(torch.ones(2, 3), None, 2), 0)["size"]
        (['model.bias', 'model.weight'], 2)
    """

    def __init__(
        self, model: nn.Module, criterion: nn.Module, names: Sequence[str], adapter: LoggingAdapter
    ) -> None:
        super().__init__()
        self.model = model
        self.criterion = criterion
        self.names = tuple(names)
        self._adapter = adapter

    def predict_step(self, batch: Batch, batch_idx: int) -> dict[str, Any]:
        """What `polytask.System.predict_step` returns for an adapted batch.

        Args:
            batch: The batch.
            batch_idx: Not used.
        """
        written = predictions(outputs_by_task(self.model, batch, self.names), self._adapter)
        return {"outputs": written, "rows": batch.rows, "size": batch.size}
