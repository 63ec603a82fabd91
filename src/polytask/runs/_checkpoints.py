"""Checkpoints: read without running code, and loaded with errors that name the differences."""

import pickle
import zipfile
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import torch
from torch import nn
from torch.nn.parameter import is_lazy
from torch.optim import Optimizer

from polytask._errors import UserError, hint
from polytask._lightning._noise import Silence, silenced

CONFIG = "polytask_config"


def read_checkpoint(path: str | Path) -> dict[str, Any]:
    """A checkpoint's tensors and plain data; code in it is refused.

    Args:
        path: The file.

    Raises:
        UserError: If there is no such file, or it is not a complete checkpoint.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     torch.save({"state_dict": {"bias": torch.zeros(2)}}, f"{folder}/last.ckpt")
        ...     read_checkpoint(f"{folder}/last.ckpt")
        {'state_dict': {'bias': tensor([0., 0.])}}
    """
    path = Path(path)
    if not path.is_file():
        siblings = (
            [str(other) for other in sorted(path.parent.glob("*.ckpt"))] if path.parent.is_dir() else []
        )
        fix = hint(str(path), siblings, "Checkpoints") if siblings else "Name a .ckpt file, `best` or `last`"
        raise UserError("--ckpt", "must be an existing file", str(path), fix)
    try:
        with silenced(Silence.CHECKPOINT):
            checkpoint = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise UserError(
            f"--ckpt {path}",
            "a checkpoint must have tensors and plain data only",
            " ".join(str(error).split())[:200],
            "Save it with polytask, or save its state_dict",
        ) from error
    except (RuntimeError, EOFError, OSError, KeyError, ValueError, zipfile.BadZipFile) as error:
        raise UserError(
            f"--ckpt {path}",
            "must be a complete checkpoint",
            f"{type(error).__name__}",
            "Use another one",
        ) from error
    if not isinstance(checkpoint, dict) or "state_dict" not in checkpoint:
        raise UserError(f"--ckpt {path}", "a checkpoint must have a 'state_dict'", type(checkpoint).__name__)
    return checkpoint


def check_optimizer(optimizer: Optimizer, checkpoint: Mapping[str, Any], where: str) -> None:
    """Refuse an optimizer that differs from the one whose state was saved.

    Args:
        optimizer: The optimizer that will load the state.
        checkpoint: The checkpoint, from `read_checkpoint`.
        where: The checkpoint's name, for the message.

    Raises:
        UserError: If options or groups differ.

    Example:
        >>> parameters = [torch.nn.Parameter(torch.zeros(2))]
        >>> saved = {"optimizer_states": [torch.optim.SGD(parameters).state_dict()]}
        >>> check_optimizer(torch.optim.SGD(parameters), saved, "last.ckpt")
        >>> check_optimizer(torch.optim.Adam(parameters), saved, "last.ckpt")
        Traceback (most recent call last):
        polytask._errors.UserError: last.ckpt: must be resumed with the same optimizer, got Adam with ...
    """
    for state in checkpoint.get("optimizer_states", ())[:1]:
        saved, own = (_shape(groups) for groups in (state["param_groups"], optimizer.param_groups))
        if saved != own:
            raise UserError(
                where,
                "must be resumed with the same optimizer",
                f"{type(optimizer).__name__} with other options or groups",
                "Undo the change, or start a new run from the weights with --ckpt",
            )


def _shape(groups: Iterable[Mapping[str, Any]]) -> list[tuple[int, set[str]]]:
    # A scheduler adds the initial learning rate.
    return [(len(group["params"]), set(group) - {"initial_lr"}) for group in groups]


@runtime_checkable
class HasExtraState(Protocol):
    """A module whose extra state may grow, and that can tell whether a saved one is one of its own."""

    def fits_extra_state(self, state: Any) -> bool:
        """Whether a saved state can be loaded."""


def _fits(own: Any, saved: Any) -> bool:
    """Whether the shapes are equal; a state without a shape or size yet gets that of the saved one."""
    if is_lazy(own) or own.shape == saved.shape:
        return True
    return bool(own.numel() == 0 and own.ndim == saved.ndim and own.shape[0] == saved.shape[0])


def _extra_fits(module: nn.Module, name: str, saved: Any, same_shape: bool) -> bool:
    """Whether a value can be loaded: what a module says of its extra state, or that the shape is the same."""
    path, _, last = name.rpartition(".")
    owner = module.get_submodule(path) if last == "_extra_state" else None
    return owner.fits_extra_state(saved) if isinstance(owner, HasExtraState) else same_shape


def load_weights(module: nn.Module, checkpoint: Mapping[str, Any], where: str) -> None:
    """Load a checkpoint's weights into a module, all of them or none.

    Args:
        module: The module.
        checkpoint: The checkpoint, from `read_checkpoint`.
        where: The checkpoint's name, for the message.

    Raises:
        UserError: If names or shapes differ; names the first of them and how many there are.

    Example:
        >>> layer = nn.Linear(1, 1)
        >>> saved = {"weight": torch.ones(1, 1), "bias": torch.ones(1)}
        >>> load_weights(layer, {"state_dict": saved}, "last.ckpt")
        >>> layer.bias.item()
        1.0
    """
    saved, own = checkpoint["state_dict"], module.state_dict()
    shapes = [
        name
        for name in own
        if name in saved and not _extra_fits(module, name, saved[name], _fits(own[name], saved[name]))
    ]
    problems = [
        (
            len(shapes),
            "of another shape",
            [f"{n} {tuple(saved[n].shape)} for {tuple(own[n].shape)}" for n in shapes],
        ),
        *(
            (len(names), text, names)
            for names, text in (
                ([name for name in own if name not in saved], "missing from it"),
                ([name for name in saved if name not in own], "not in the model"),
            )
        ),
    ]
    found = "; ".join(f"{count} {text}, such as {names[0]}" for count, text, names in problems if count)
    if found:
        raise UserError(
            where, "the checkpoint is from another architecture", found, "Use the config it was trained with"
        )
    module.load_state_dict(saved)
