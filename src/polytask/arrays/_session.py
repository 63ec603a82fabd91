"""A System that is trained and evaluated in several calls, each of which continues from the previous one."""

import signal
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import pytorch_lightning as pl
import torch
from torch import nn
from torch.optim import Optimizer

from polytask._checks import check_integer, is_finite
from polytask._errors import UserError
from polytask._lightning._interrupts import interrupts
from polytask._lightning._noise import SILENT, quiet_lightning
from polytask._lightning._training import count_from_epoch
from polytask.adapters import BatchAdapter
from polytask.arrays._epoch_history import EpochHistory, LoggedValues
from polytask.arrays._placement import placement
from polytask.batch import IGNORE_INDEX
from polytask.data import ReplayableLoader
from polytask.data._loader_errors import data_errors
from polytask.data._tensors import as_inputs, as_tensor, as_tensors, float_dtype
from polytask.system import System


class Session:
    """Trains and evaluates a `polytask.System` on batches ``(inputs, {task: target})`` of arrays or tensors.

    Each call has a new Lightning Trainer; model, optimizer, weighting and the number of epochs are kept
    between the calls.

    Args:
        model: The model.
        criterion: A criterion for `polytask.System`.
        optimizer: The optimizer, made of the model's and the criterion's parameters.
        device: ``cpu``, ``cuda``, ``cuda:1``, ``mps``.
        metrics: Metrics or functions by task.
        grad_clip: Largest norm of the gradient; None clips nothing.

    Attributes:
        system: The system.
        history: The values of each epoch since the session was made.

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
        parts = PairParts(float_dtype(model) if isinstance(model, nn.Module) else torch.float32)
        adapter = BatchAdapter(parts.inputs, parts.targets)
        self.system = System(
            model, criterion, _MadeOptimizer(optimizer), metrics=metrics, adapters={"batch": adapter}
        )
        _check_parameters(optimizer, self.system)
        self._optimizer = optimizer
        self._device = torch.device(device)
        self.system.to(self._device)
        self.history = EpochHistory()

    def train_for(
        self, epochs: int, train: Any, val: Any = None, callbacks: Sequence[pl.Callback] = ()
    ) -> dict[str, list[float]]:
        """Train for a number of further epochs.

        Args:
            epochs: The number.
            train: The loader to train on.
            val: The loader to validate on after each epoch.
            callbacks: Lightning callbacks.

        Returns:
            By log key a list with a value for each of these epochs, NaN for an epoch without one.
        """
        epochs = check_integer(epochs, "epochs", 1)
        done = len(self.history.epochs)
        loaders = {"train": train} if val is None else {"train": train, "val": _one(val)}
        # The history comes last: it clears the values that other callbacks read when an epoch starts.
        own = [*callbacks, self.history]
        with self._trainer(loaders, own, max_epochs=done + epochs) as trainer:
            # Samplers shuffle each epoch by its number.
            count_from_epoch(trainer, done)
            trainer.fit(self.system)
        return self.history.by_key(done)

    def evaluate_on(self, loader: Any) -> LoggedValues:
        """The values of one pass over a loader, by log key.

        Args:
            loader: The loader to validate on.
        """
        with self._trainer({"val": _one(loader)}, ()) as trainer:
            trainer.validate(self.system, verbose=False)
        return {key: value for key, value in self.system.latest.items() if key.startswith("val/")}

    @contextmanager
    def _trainer(
        self, loaders: Mapping[str, Any], callbacks: Sequence[pl.Callback], max_epochs: int | None = None
    ) -> Iterator[pl.Trainer]:
        system = self.system
        system.dataloaders = dict(loaders)
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
            with quiet_lightning(), data_errors(system.dataloaders), interrupts():
                yield pl.Trainer(**options)
        finally:
            if signal.getsignal(signal.SIGINT) is not handler:
                signal.signal(signal.SIGINT, handler)
            # They would keep the data alive.
            system.dataloaders, system.trainer = {}, None
            self._to_device()

    def _to_device(self) -> None:
        """Move model and optimizer back to the session's device: Lightning leaves them on the host."""
        if self._device.type != "cpu":
            self.system.to(self._device)
            self._optimizer.load_state_dict(self._optimizer.state_dict())


class PairParts:
    """Finds inputs and targets in a batch ``(inputs, {task: target})``, as tensors.

    Args:
        dtype: The model's floating point dtype.

    Example:
        >>> import numpy as np
        >>> batch = np.zeros((2, 3)), {"digit": np.array([4, 2], dtype=np.int8)}
        >>> parts = PairParts(torch.float32)
        >>> parts.inputs(batch).dtype, parts.targets(batch)
        (torch.float32, {'digit': tensor([4, 2], dtype=torch.int8)})
    """

    def __init__(self, dtype: torch.dtype) -> None:
        self.dtype = dtype

    def inputs(self, batch: Any) -> Any:
        """The model's inputs."""
        return as_inputs(_pair(batch)[0], self.dtype)

    def targets(self, batch: Any) -> Any:
        """The targets by task; a single target if there is one task."""
        targets = _pair(batch)[1]
        if isinstance(targets, Mapping):
            return as_tensors(targets, "targets")
        return as_tensor(targets, "targets", IGNORE_INDEX)


def _pair(batch: Any) -> tuple[Any, Any]:
    if isinstance(batch, (list, tuple)) and len(batch) == 2:
        return batch[0], batch[1]
    found = f"a {type(batch).__name__}"
    if isinstance(batch, (list, tuple)):
        found += " of " + ", ".join(type(part).__name__ for part in batch)
    fix = "Use create_multitask_dataloader, or a loader whose data set yields such pairs"
    raise UserError("loader", "must yield pairs (inputs, {task: target})", found, fix)


def _one(loader: Any) -> Any:
    """Lightning would take a list of batches for a list of loaders."""
    return ReplayableLoader(loader) if isinstance(loader, (list, tuple)) else loader


class _MadeOptimizer:
    """An optimizer factory that returns an existing optimizer."""

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
        raise UserError("grad_clip", "must be a norm above 0, or None", repr(clip))


def _check_parameters(optimizer: Optimizer, system: System) -> None:
    """An optimizer made by hand may lack what the criterion learns, which would then never be trained."""
    held = {id(p) for group in optimizer.param_groups for p in group["params"]}
    if not any(id(parameter) in held for parameter in system.model.parameters()):
        raise UserError("optimizer", "must have the model's parameters", "none of them")
    missing = [name for name, p in system.criterion.named_parameters() if id(p) not in held]
    if missing:
        raise UserError(
            "optimizer",
            "must have the loss's parameters",
            f"an optimizer without {len(missing)} of them, such as {missing[0]}",
            "Pass [*model.parameters(), *loss_fn.parameters()]",
        )
