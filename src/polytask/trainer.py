"""MultiTaskTrainer: a model, a loss and an optimizer, trained from Python."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import nn
from torch.optim import Optimizer

from polytask._console import plain_console
from polytask._errors import UserError
from polytask.arrays._session import Session
from polytask.callbacks._progress import ProgressReport
from polytask.losses import MultiTaskLoss


class MultiTaskTrainer:
    """Trains a model on loaders of ``(inputs, {task: target})``, in one call or several.

    The steps are those of a `polytask.System`: missing labels are left out, gradient-based weightings get
    their gradients, a loss that is not finite ends the training. Model, loss and optimizer are used without a
    copy, and keep their state between the calls. Inputs and targets may be tensors or numpy arrays; integers
    of any width and float64 are converted.

    Values are called by their log keys: ``train/loss/<task>/epoch``, ``train/loss/total/epoch``,
    ``val/<task>/<metric>/epoch``, ``weights/<task>``.

    Args:
        model: Returns a dict by task, or a list in the loss's task order.
        loss_fn: A `polytask.losses.MultiTaskLoss`, or another criterion for `polytask.System`.
        optimizer: Made of the model's and the loss's parameters.
        device: ``cpu``, ``cuda``, ``cuda:1``, ``mps``; the model and the loss are moved there.
        metric_fns: For each task a function ``(predictions, targets) -> float`` on arrays, or a torchmetrics
            metric; or a list or a dict of them.
        grad_clip: Largest norm of the gradient of all parameters; None clips nothing.

    Raises:
        UserError: If an argument cannot be used, or the optimizer lacks the loss's parameters.

    Example:
        >>> from polytask.losses import UncertaintyWeighting
        >>> from polytask.models import MLP, create_hard_sharing_model
        >>> _ = torch.manual_seed(0)
        >>> heads = {"sign": {"output_dim": 2}, "sum": {"output_dim": 1}}
        >>> model = create_hard_sharing_model(MLP(4, [8], 8), heads)
        >>> loss_fn = UncertaintyWeighting(
        ...     {"sign": nn.CrossEntropyLoss(), "sum": nn.MSELoss()}, {"sign": "classification"})
        >>> optimizer = torch.optim.Adam([*model.parameters(), *loss_fn.parameters()], lr=0.01)
        >>> x = torch.randn(64, 4)
        >>> batches = [(x, {"sign": (x[:, 0] > 0).int(), "sum": x.sum(1)})]
        >>> trainer = MultiTaskTrainer(model, loss_fn, optimizer)
        >>> history = trainer.fit(batches, epochs=20, verbose=False)
        >>> history["train/loss/total/epoch"][-1] < history["train/loss/total/epoch"][0]
        True
        >>> sorted(trainer.get_task_weights())
        ['sign', 'sum']
    """

    def __init__(
        self,
        model: nn.Module,
        loss_fn: nn.Module,
        optimizer: Optimizer,
        device: str | torch.device = "cpu",
        metric_fns: Mapping[str, Any] | None = None,
        grad_clip: float | None = None,
    ) -> None:
        self._session = Session(model, loss_fn, optimizer, device, metric_fns, grad_clip)
        self.model = model
        self.loss_fn = self._session.system.criterion
        self.optimizer = optimizer

    def train_epoch(self, train_loader: Any, verbose: bool = True) -> dict[str, float]:
        """Train for one epoch.

        Args:
            train_loader: Yields ``(inputs, {task: target})``.
            verbose: Whether to show a line with the epoch's values.

        Returns:
            The epoch's values by log key.

        Raises:
            UserError: If the data does not fit the model or the loss.
            RunError: If a loss is not finite.
        """
        values = self._session.train_for(1, train_loader, None, _report(verbose))
        return {key: value for key, (value,) in values.items()}

    def validate(self, val_loader: Any) -> dict[str, float]:
        """Losses and metrics on data, without training.

        Args:
            val_loader: Yields ``(inputs, {task: target})``.

        Returns:
            The values by log key, ``val/...``.

        Raises:
            UserError: If the data does not fit the model or the loss.
        """
        return self._session.evaluate_on(val_loader)

    def fit(
        self, train_loader: Any, val_loader: Any = None, epochs: int = 10, verbose: bool = True
    ) -> dict[str, list[float]]:
        """Train for a number of epochs, continuing from the model's current state.

        Args:
            train_loader: Yields ``(inputs, {task: target})``.
            val_loader: Likewise, to validate on after each epoch.
            epochs: The number.
            verbose: Whether to show a line for each epoch, or a progress bar on a terminal.

        Returns:
            By log key a list with a value for each of these epochs, NaN for an epoch without one;
            ``weights/<task>`` are the weights of the epochs' last steps.

        Raises:
            UserError: If the data does not fit the model or the loss.
            RunError: If a loss is not finite.
        """
        return self._session.train_for(epochs, train_loader, val_loader, _report(verbose))

    def get_task_weights(self) -> dict[str, float]:
        """The weight of each task at its last loss, see `polytask.losses.MultiTaskLoss.get_task_weights`.

        Raises:
            UserError: If the loss is not a `polytask.losses.MultiTaskLoss`.
        """
        if not isinstance(self.loss_fn, MultiTaskLoss):
            raise UserError("loss_fn", "must be a MultiTaskLoss", type(self.loss_fn).__name__)
        return self.loss_fn.get_task_weights()

    def get_task_uncertainties(self) -> dict[str, float] | None:
        """The learned noise of each task, in the unit of its targets; None if none is learned."""
        learned = getattr(getattr(self.loss_fn, "weighting", None), "get_uncertainties", None)
        return None if learned is None else learned()


def _report(verbose: bool) -> list[ProgressReport]:
    return [ProgressReport(plain_console())] if verbose else []
