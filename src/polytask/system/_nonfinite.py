"""Losses, gradients and weights that are not finite: how they are found, and the errors for them."""

from collections.abc import Iterable, Mapping, Sequence

import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import ModelCheckpoint
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves

from polytask._errors import RunError
from polytask.batch import HALF, Batch

_MOST_NAMES = 3


class SkippedStepError(Exception):
    """Raised in an optimizer's closure, so that the optimizer changes nothing."""


def nonfinite_losses(
    losses: Mapping[str, float], step: int, trainer: pl.Trainer, rows: Sequence[str] = ()
) -> RunError:
    """The error for losses that are not finite, with the last good checkpoint.

    Args:
        losses: Those losses by task, in one step; also the ``total``.
        step: The first step with such losses, from 0.
        trainer: The trainer, which knows the epoch and the checkpoints.
        rows: The rows of the batch that hold such values, as `bad_rows` names them.

    Example:
        >>> trainer = pl.Trainer(accelerator="cpu", logger=False, enable_checkpointing=False)
        >>> nonfinite_losses({"digit": float("nan"), "total": float("nan")}, 3, trainer).found
        'nan at step 3 in epoch 0'
    """
    tasks = [name for name in losses if name != "total"]
    values = dict.fromkeys(str(value) for name, value in losses.items() if name in tasks or not tasks)
    return RunError(
        _tasks(tasks) or "total loss",
        "the loss must be finite",
        f"{' and '.join(values)} {_when(step, trainer, rows)}",
        f"{_good(trainer)}. Lower the learning rate, check the data, or set on_nonfinite: skip",
    )


def nonfinite_gradients(
    tasks: Sequence[str],
    parameters: Sequence[str],
    step: int,
    trainer: pl.Trainer,
    rows: Sequence[str] = (),
) -> RunError:
    """The error for gradients that are not finite, with the last good checkpoint.

    Args:
        tasks: The tasks at fault; none if that is not known.
        parameters: The parameters with such gradients.
        step: The step, from 0.
        trainer: The trainer, which knows the epoch and the checkpoints.
        rows: The rows of the batch that hold such values, as `bad_rows` names them.

    Example:
        >>> trainer = pl.Trainer(accelerator="cpu", logger=False, enable_checkpointing=False)
        >>> str(nonfinite_gradients(["digit"], [], 3, trainer)).split(". ")[0]
        "task 'digit': the gradients must be finite, got NaN or infinity at step 3 in epoch 0"
    """
    shown = ", ".join(parameters[:_MOST_NAMES]) + ", ..." * (len(parameters) > _MOST_NAMES)
    where = f" in {shown}" if parameters and not tasks else ""
    return RunError(
        _tasks(tasks) or "model",
        "the gradients must be finite",
        f"NaN or infinity{where} {_when(step, trainer, rows)}",
        f"{_good(trainer)}. Look for a root, a logarithm or a quotient at 0, or set on_nonfinite: skip",
    )


def every_step_skipped(trainer: pl.Trainer) -> RunError:
    """The error for an epoch in which each step was skipped, one at least for a value that was not finite.

    Args:
        trainer: The trainer, which knows the epoch and the checkpoints.

    Example:
        >>> trainer = pl.Trainer(accelerator="cpu", logger=False, enable_checkpointing=False)
        >>> every_step_skipped(trainer).found
        'every step skipped in epoch 0'
    """
    return RunError(
        "on_nonfinite: skip",
        "an epoch must have a step with finite losses and gradients",
        f"every step skipped in epoch {trainer.current_epoch}",
        f"{_good(trainer)}. Lower the learning rate, or check the data",
    )


def _tasks(names: Sequence[str]) -> str:
    return f"task{'s' * (len(names) > 1)} {', '.join(map(repr, names))}" if names else ""


def _when(step: int, trainer: pl.Trainer, rows: Sequence[str]) -> str:
    shown = ", ".join(rows[:_MOST_NAMES]) + ", ..." * (len(rows) > _MOST_NAMES)
    of = f" (row{'s' * (len(rows) > 1)} {shown} of the batch)" if rows else ""
    return f"at step {step} in epoch {trainer.current_epoch}{of}"


def _good(trainer: pl.Trainer) -> str:
    paths = [
        path
        for callback in trainer.checkpoint_callbacks
        if isinstance(callback, ModelCheckpoint)
        for path in (callback.last_model_path, callback.best_model_path)
        if path
    ]
    return f"The last good checkpoint is {paths[0]}" if paths else "No checkpoint was saved before it"


def bad_rows(batch: Batch, names: Iterable[str]) -> list[str]:
    """The rows of a batch with an infinite target of these tasks, or an input that is not finite.

    Each is its index, with the ids that the batch has.

    Args:
        batch: The batch.
        names: The tasks.

    Example:
        >>> bad_rows(Batch(torch.tensor([[1.0], [torch.nan]]), None, 2, ids={"name": ["a", "b"]}), ["digit"])
        ["1 with name 'b'"]
    """
    found: set[int] = set()
    for value in tree_leaves(batch.inputs):
        if _by_row(value) and len(value) == batch.size:
            found.update(_rows_with(~value.isfinite()))
    targets = batch.targets if isinstance(batch.targets, Mapping) else {}
    for name in names:
        target = targets.get(name)
        if target is not None and _by_row(target):
            rows = None if batch.rows is None else batch.rows.get(name)
            own = _rows_with(target.isinf())
            found.update(own if rows is None else rows[own].tolist())
    return [_row(batch, row) for row in sorted(found)]


def _row(batch: Batch, row: int) -> str:
    values = {name: ids[row] for name, ids in batch.ids.items() if row < len(ids)}
    shown = [f"{name} {(v.item() if isinstance(v, Tensor) else v)!r}" for name, v in values.items()]
    return f"{row} with {' and '.join(shown)}" if shown else str(row)


def _by_row(value: object) -> bool:
    return isinstance(value, Tensor) and value.is_floating_point() and value.ndim > 0


def _rows_with(bad: Tensor) -> list[int]:
    indices: list[int] = bad.reshape(len(bad), -1).any(1).nonzero().flatten().tolist()
    return indices


def finite_sums(gradients: Iterable[Tensor]) -> Tensor:
    """Whether the sum of each gradient is finite, ``(gradients,)``, on the device.

    It is not if an element is not finite, and takes a fraction of the time of looking at each element.

    Args:
        gradients: At least one gradient; they may be sparse.

    Example:
        >>> finite_sums([torch.ones(2), torch.tensor([torch.inf, -torch.inf])])
        tensor([ True, False])
    """
    values = [each._values() if each.is_sparse else each for each in gradients]
    sums = [each.sum(dtype=torch.float32 if each.dtype in HALF else None) for each in values]
    return torch.stack([each.to(sums[0].device) for each in sums]).isfinite()


def is_bad(gradient: Tensor, infinite: bool) -> bool:
    """Whether an element of a gradient is not finite; read on the host.

    Args:
        gradient: The gradient.
        infinite: Whether infinity is allowed.

    Example:
        >>> is_bad(torch.tensor([torch.inf]), True), is_bad(torch.tensor([torch.inf]), False)
        (False, True)
    """
    values = gradient._values() if gradient.is_sparse else gradient
    return bool(values.isnan().any() if infinite else ~values.isfinite().all())


def check_weights(module: nn.Module, step: int) -> None:
    """Check that all parameters are finite, which a finite loss does not imply.

    Args:
        module: The module that is about to be saved.
        step: The number of optimizer steps so far, for the message.

    Raises:
        RunError: If a parameter is not finite, with its name.

    Example:
        >>> check_weights(nn.Linear(2, 1), 3)
    """
    for name, parameter in module.named_parameters():
        if not bool(parameter.isfinite().all()):
            raise RunError(
                f"weight '{name}'",
                "must be finite to be saved",
                f"NaN or infinity after step {step - 1}",
                "Clip the gradients (trainer.gradient_clip_val), or lower the learning rate",
            )
