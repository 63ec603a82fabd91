"""A System that is trained and evaluated in several calls, each of which goes on from the last."""

import math
import signal
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import pytorch_lightning as pl
import torch
from torch import nn
from torch.optim import Optimizer

from polytask._checks import is_finite, is_integer
from polytask._errors import UserError
from polytask._lightning._interrupts import interrupts
from polytask._lightning._noise import SILENT, quiet_lightning
from polytask._lightning._training import count_from_epoch
from polytask.adapters import BatchAdapter
from polytask.arrays._placement import placement
from polytask.data import ReplayableLoader
from polytask.data._loader_errors import data_errors
from polytask.data._tensors import as_inputs, as_tensor, as_tensors, float_dtype
from polytask.system import System

Values = dict[str, float]


class Session(System):
    """A `polytask.System` on batches ``(inputs, {task: target})`` of arrays or tensors.

    Each call has a Lightning Trainer of its own; model, optimizer, weighting and the number of epochs
    live on here.

    Args:
        model: The model.
        criterion: What `polytask.System` takes.
        optimizer: The optimizer, made of the model's and the criterion's parameters.
        device: ``cpu``, ``cuda``, ``cuda:1``, ``mps``.
        metrics: Metrics or functions by task.
        grad_clip: Largest norm of the gradient; None clips nothing.

    Attributes:
        history: The values of each epoch since the session was made, by log key.

    Example:
        >>> model = nn.Linear(2, 1)
        >>> session = Session(
        ...     model, {"a": nn.MSELoss()}, torch.optim.SGD(model.parameters(), lr=0.1), "cpu")
        Traceback (most recent call last):
        polytask._errors.UserError: criterion: must be a torch.nn.Module, got dict.
    """

    def __init__(
        self,
        model: nn.Module,
        criterion: nn.Module,
        optimizer: Optimizer,
        device: str | torch.device = "cpu",
        metrics: Mapping[str, Any] | None = None,
        grad_clip: float | None = None,
    ) -> None:
        _check_optimizer(optimizer)
        self._placement = placement(device)
        _check_clip(grad_clip)
        self._clip = grad_clip
        parts = Parts(float_dtype(model) if isinstance(model, nn.Module) else torch.float32)
        adapter = BatchAdapter(parts.inputs, parts.targets)
        super().__init__(model, criterion, _Given(optimizer), metrics=metrics, adapters={"batch": adapter})
        self._optimizer = optimizer
        self._check_parameters()
        self._place = torch.device(device)
        self.to(self._place)
        self.history: list[Values] = []

    def _check_parameters(self) -> None:
        """An optimizer made by hand may lack what the criterion learns, which would then never move."""
        held = {id(p) for group in self._optimizer.param_groups for p in group["params"]}
        if not any(id(parameter) in held for parameter in self.model.parameters()):
            raise UserError("optimizer", "trains the model's parameters", "none of them in it")
        missing = [name for name, p in self.criterion.named_parameters() if id(p) not in held]
        if missing:
            raise UserError(
                "optimizer",
                "trains the loss's parameters too",
                f"{len(missing)} that it lacks, such as {missing[0]}",
                "Pass [*model.parameters(), *loss_fn.parameters()]",
            )

    # ---- calls --------------------------------------------------------------------------------

    def train_for(
        self, epochs: int, train: Any, val: Any = None, callbacks: Sequence[pl.Callback] = ()
    ) -> dict[str, list[float]]:
        """Train for some more epochs.

        Args:
            epochs: How many.
            train: The loader to train on.
            val: The loader to validate on after each epoch.
            callbacks: Lightning callbacks.

        Returns:
            What `by_epoch` gives for these epochs.
        """
        if not is_integer(epochs, 1):
            raise UserError("epochs", "is a number of epochs, 1 or more", repr(epochs))
        done = len(self.history)
        loaders = {"train": train} if val is None else {"train": train, "val": _one(val)}
        with self._lightning(loaders, callbacks, max_epochs=done + int(epochs)) as trainer:
            # Samplers shuffle each epoch by its number.
            count_from_epoch(trainer, done)
            trainer.fit(self)
        return self.by_epoch(done)

    def evaluate_on(self, loader: Any) -> Values:
        """The values of one pass over a loader, by log key.

        Args:
            loader: The loader to validate on.
        """
        with self._lightning({"val": _one(loader)}, ()) as trainer:
            trainer.validate(self, verbose=False)
        return {key: value for key, value in self.latest.items() if key.startswith("val/")}

    def by_epoch(self, first: int = 0) -> dict[str, list[float]]:
        """By log key a list with a value for each epoch, NaN where an epoch had none.

        Args:
            first: The epoch to begin with, from 0.
        """
        epochs = self.history[first:]
        keys = dict.fromkeys(key for epoch in epochs for key in epoch)
        return {key: [epoch.get(key, math.nan) for epoch in epochs] for key in keys}

    @contextmanager
    def _lightning(
        self, loaders: Mapping[str, Any], callbacks: Sequence[pl.Callback], max_epochs: int | None = None
    ) -> Iterator[pl.Trainer]:
        self.dataloaders = dict(loaders)
        handler = signal.getsignal(signal.SIGINT)
        options: dict[str, Any] = {
            **SILENT,
            **self._placement,
            "max_epochs": max_epochs,
            "gradient_clip_val": self._clip,
            "callbacks": list(callbacks),
            "num_sanity_val_steps": 0,
            # A function on arrays is for a whole epoch: it may fail on a few batches of it.
            "log_every_n_steps": 0,
        }
        try:
            with quiet_lightning(), data_errors(self.dataloaders), interrupts():
                yield pl.Trainer(**options)
        finally:
            if signal.getsignal(signal.SIGINT) is not handler:
                signal.signal(signal.SIGINT, handler)
            # They would keep the data alive.
            self.dataloaders, self.trainer = {}, None
            self._return()

    def _return(self) -> None:
        """Lightning leaves everything on the host; the user has put it on a device."""
        if self._place.type != "cpu":
            self.to(self._place)
            self._optimizer.load_state_dict(self._optimizer.state_dict())

    # ---- hooks --------------------------------------------------------------------------------

    def on_train_epoch_start(self) -> None:
        """Forget the epoch before."""
        self.latest = {}

    def on_before_optimizer_step(self, optimizer: Optimizer) -> None:
        """Keep the weights of the epoch's last step, before the step changes them."""
        super().on_before_optimizer_step(optimizer)
        if self.balance is not None and self.trainer.is_last_batch:
            self.balance.keep_weights()

    def on_train_epoch_end(self) -> None:
        """Keep the epoch's values.

        Raises:
            UserError: Where the epoch had no batch, as the second one over an iterator has none.
        """
        if not self.trainer.fit_loop.epoch_loop.batch_progress.current.ready:
            raise UserError(
                "train loader",
                "has to yield batches every time it is gone through",
                f"none in epoch {self.current_epoch + 1}",
                "Pass a loader, not an iterator over it",
            )
        weights = {} if self.balance is None else self.balance.weights
        super().on_train_epoch_end()
        self.history.append({**self.latest, **{f"weights/{name}": w for name, w in weights.items()}})


class Parts:
    """Finds inputs and targets in a batch ``(inputs, {task: target})``, as tensors.

    Args:
        dtype: The model's floating point dtype.

    Example:
        >>> import numpy as np
        >>> batch = np.zeros((2, 3)), {"digit": np.array([4, 2], dtype=np.int8)}
        >>> parts = Parts(torch.float32)
        >>> parts.inputs(batch).dtype, parts.targets(batch)
        (torch.float32, {'digit': tensor([4, 2], dtype=torch.int8)})
    """

    def __init__(self, dtype: torch.dtype) -> None:
        self.dtype = dtype

    def inputs(self, batch: Any) -> Any:
        """The model's inputs."""
        return as_inputs(_pair(batch)[0], self.dtype)

    def targets(self, batch: Any) -> Any:
        """The targets by task; those of the only task as they come."""
        targets = _pair(batch)[1]
        return (as_tensors if isinstance(targets, Mapping) else as_tensor)(targets, "targets")


def _pair(batch: Any) -> tuple[Any, Any]:
    if isinstance(batch, (list, tuple)) and len(batch) == 2:
        return batch[0], batch[1]
    found = f"a {type(batch).__name__}"
    if isinstance(batch, (list, tuple)):
        found += " of " + ", ".join(type(part).__name__ for part in batch)
    fix = "Use create_multitask_dataloader, or a loader whose data set yields such pairs"
    raise UserError("loader", "yields pairs (inputs, {task: target})", found, fix)


def _one(loader: Any) -> Any:
    """Lightning would take a list of batches for a list of loaders."""
    return ReplayableLoader(loader) if isinstance(loader, (list, tuple)) else loader


class _Given:
    """Builds the optimizer that there is already."""

    def __init__(self, optimizer: Optimizer) -> None:
        self.optimizer = optimizer

    def __call__(self, groups: Any) -> Optimizer:
        return self.optimizer


def _check_optimizer(optimizer: Any) -> None:
    if not isinstance(optimizer, Optimizer):
        found = type(optimizer).__name__
        raise UserError("optimizer", "must be a torch.optim.Optimizer", found, "Pass Adam(parameters, ...)")


def _check_clip(clip: Any) -> None:
    if clip is not None and not (is_finite(clip) and clip > 0):
        raise UserError("grad_clip", "is a norm above 0, or None", repr(clip))
