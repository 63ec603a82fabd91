"""Parts of the model that are frozen, permanently or for a time."""

from collections.abc import Iterable, Sequence
from typing import Any

from pytorch_lightning import Callback, LightningModule, Trainer
from torch import nn

from polytask._checks import check_integer
from polytask._errors import UserError, hint
from polytask.optim import named_parameters


class Freezer(Callback):
    """Freezes parts of the model, permanently or until a step or an epoch.

    Frozen parameters get no gradient, so that the optimizer does not change them, and modules without
    trainable parameters are put in evaluation mode, so that batch norm keeps its statistics and dropout is
    off. Parameters that were frozen before the fit stay frozen. What is frozen depends on the step and the
    epoch alone, so a resumed run continues unchanged. Several freezers may overlap; a parameter is trained
    when none of them holds it.

    Under DDP with a criterion that is not a `MultiTaskLoss`, set
    ``strategy: ddp_find_unused_parameters_true``; otherwise DDP waits for the gradients of frozen parameters.

    Args:
        names: Parts of the model, by name or by dotted prefix of a name, as in the optimizer's groups:
            ``backbone``, ``heads.digit``.
        exceptions: Parts of these that are trained nevertheless.
        until_epoch: The epoch, from 0, in which training of the parts begins.
        until_step: The number of optimizer steps after which it begins. If neither is given, the parts are
            never trained; if both are, whichever is reached first decides.

    Raises:
        UserError: At construction, if an argument has the wrong type; when the fit starts, if a name matches
            no parameter, or no parameter is left to train.

    Example:
        >>> Freezer(["backbone"], exceptions=["backbone.layer4"], until_epoch=2).until_epoch
        2
    """

    def __init__(
        self,
        names: Sequence[str],
        exceptions: Sequence[str] = (),
        until_epoch: int | None = None,
        until_step: int | None = None,
    ) -> None:
        self.names = _strings(names, "Freezer.names")
        self.exceptions = _strings(exceptions, "Freezer.exceptions")
        self.until_epoch = _count(until_epoch, "Freezer.until_epoch")
        self.until_step = _count(until_step, "Freezer.until_step")
        if not self.names:
            raise UserError("Freezer.names", "must name at least one part of the model", "none")
        self._held: list[nn.Parameter] = []
        self._still: set[nn.Module] = set()
        self._awake: set[nn.Module] = set()

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Find the parameters and modules, before any of these callbacks changes one."""
        if stage == "fit":
            named = named_parameters(_model(pl_module))
            chosen = _under(named, self.names, "Freezer.names") - _under(
                named, self.exceptions, "Freezer.exceptions"
            )
            self._held = [named[name] for name in named if name in chosen]
            self._awake = {module for module in pl_module.modules() if module.training}

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Freeze them; the optimizer has been made, and can train them later.

        Raises:
            UserError: If no parameter is left to train.
        """
        if self._is_over(trainer):
            self._held = []
        for parameter in self._held:
            parameter.requires_grad_(False)
        if not any(parameter.requires_grad for parameter in pl_module.parameters()):
            raise UserError("Freezer", "must leave a parameter to train", "every parameter frozen")
        self._still = _still(pl_module, {id(parameter) for parameter in self._held}) & self._awake
        for module in self._still:
            module.training = False

    def on_train_batch_start(
        self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int
    ) -> None:
        """Unfreeze them at the given step or epoch."""
        if self._held and self._is_over(trainer):
            self._unfreeze(trainer, pl_module)

    def teardown(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Restore the model's state before the fit."""
        if stage == "fit":
            self._unfreeze(trainer, pl_module)

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        """Restore the model's state before the fit."""
        self._unfreeze(trainer, pl_module)

    def _is_over(self, trainer: Trainer) -> bool:
        epoch, step = self.until_epoch, self.until_step
        return (epoch is not None and trainer.current_epoch >= epoch) or (
            step is not None and trainer.global_step >= step
        )

    def _unfreeze(self, trainer: Trainer, pl_module: LightningModule) -> None:
        held, still, self._held, self._still = self._held, self._still, [], set()
        kept = {id(parameter) for other in _freezers(trainer) for parameter in other._held}
        for parameter in held:
            parameter.requires_grad_(id(parameter) not in kept)
        unchanged = _still(pl_module, kept)
        for module in still:
            module.training = module not in unchanged


def _model(pl_module: LightningModule) -> nn.Module:
    """The model of a `System`; another LightningModule itself."""
    model = getattr(pl_module, "model", None)
    return model if isinstance(model, nn.Module) else pl_module


def _freezers(trainer: Trainer) -> list[Freezer]:
    callbacks: list[Callback] = trainer.callbacks  # type: ignore[attr-defined]
    return [callback for callback in callbacks if isinstance(callback, Freezer)]


def _under(named: Iterable[str], prefixes: Sequence[str], where: str) -> set[str]:
    """The names that equal one of the prefixes, or begin with it."""
    found: set[str] = set()
    for prefix in prefixes:
        fitting = {name for name in named if f"{name}.".startswith(f"{prefix}.")}
        if not fitting:
            parts = {".".join(name.split(".")[:depth]): None for name in named for depth in (1, 2, 3)}
            rule = "must be a part of the model with trainable parameters"
            raise UserError(where, rule, repr(prefix), hint(prefix, parts, "Parts"))
        found |= fitting
    return found


def _still(module: nn.Module, held: set[int]) -> set[nn.Module]:
    """The modules without trainable parameters once these are frozen."""
    found: set[nn.Module] = set()
    for part in module.modules():
        own = list(part.parameters())
        trained = [parameter for parameter in own if parameter.requires_grad and id(parameter) not in held]
        if not trained and any(id(parameter) in held for parameter in own):
            found.update(part.modules())
    return found


def _strings(value: object, where: str) -> tuple[str, ...]:
    if isinstance(value, str) or not isinstance(value, Sequence):
        raise UserError(where, "must be a list of names", repr(value), f"Write [{value}]")
    for name in value:
        if not isinstance(name, str):
            raise UserError(where, "must be a list of names", repr(name))
    return tuple(value)


def _count(value: object, where: str) -> int | None:
    if value is None:
        return None
    return check_integer(value, where, 0)
