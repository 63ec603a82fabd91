"""Parts of the model that are kept as they are, for a while or for good."""

from collections.abc import Iterable, Sequence
from typing import Any

from pytorch_lightning import Callback, LightningModule, Trainer
from torch import nn

from polytask._checks import check_integer
from polytask._errors import UserError, hint
from polytask.optim import named_parameters


class Freezer(Callback):
    """Keeps parts of the model as they are, for good or until a step or an epoch.

    Frozen parameters get no gradient, so that the optimizer leaves them alone, and modules with nothing left
    to train are put in evaluation mode, so that batch norm keeps its statistics and dropout is off. What was
    frozen before the fit stays so. What is frozen follows from the step and the epoch alone: a resumed run
    goes on as it was. Several of these may overlap; a parameter is trained when none of them holds it.

    Under DDP with a criterion that is no `MultiTaskLoss`, set
    ``strategy: ddp_find_unused_parameters_true``: DDP waits for the gradients of frozen parameters otherwise.

    Args:
        names: Parts of the model, by name or by dotted prefix of a name, as the optimizer's groups name
            them: ``backbone``, ``heads.digit``.
        exceptions: Parts of these that are trained all the same.
        until_epoch: The epoch, from 0, in which training of the parts begins.
        until_step: The number of optimizer steps after which it begins. Where neither is given it never
            does; where both are, the first decides.

    Raises:
        UserError: At the construction where an argument is of another kind; when the fit starts where a name
            fits no parameter, or nothing is left to train.

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
            raise UserError("Freezer.names", "needs at least one part of the model", "none")
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
        """Freeze them: the optimizer has them by now, and can go on with them later."""
        if self._is_over(trainer):
            self._held = []
        for parameter in self._held:
            parameter.requires_grad_(False)
        if not any(parameter.requires_grad for parameter in pl_module.parameters()):
            raise UserError("Freezer", "must leave something to train", "every parameter frozen")
        self._still = _still(pl_module, {id(parameter) for parameter in self._held}) & self._awake
        for module in self._still:
            module.training = False

    def on_train_batch_start(
        self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int
    ) -> None:
        """Let go of them when it is time."""
        if self._held and self._is_over(trainer):
            self._let_go(trainer, pl_module)

    def teardown(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Leave the model as it was found."""
        if stage == "fit":
            self._let_go(trainer, pl_module)

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        """Leave the model as it was found."""
        self._let_go(trainer, pl_module)

    def _is_over(self, trainer: Trainer) -> bool:
        epoch, step = self.until_epoch, self.until_step
        return (epoch is not None and trainer.current_epoch >= epoch) or (
            step is not None and trainer.global_step >= step
        )

    def _let_go(self, trainer: Trainer, pl_module: LightningModule) -> None:
        held, still, self._held, self._still = self._held, self._still, [], set()
        kept = {id(parameter) for other in _freezers(trainer) for parameter in other._held}
        for parameter in held:
            parameter.requires_grad_(id(parameter) not in kept)
        unchanged = _still(pl_module, kept)
        for module in still:
            module.training = module not in unchanged


def _model(pl_module: LightningModule) -> nn.Module:
    """The model in a `System`; another LightningModule is its own."""
    model = getattr(pl_module, "model", None)
    return model if isinstance(model, nn.Module) else pl_module


def _freezers(trainer: Trainer) -> list[Freezer]:
    callbacks: list[Callback] = trainer.callbacks  # type: ignore[attr-defined]
    return [callback for callback in callbacks if isinstance(callback, Freezer)]


def _under(named: Iterable[str], prefixes: Sequence[str], where: str) -> set[str]:
    """The names that one of the prefixes is, or begins."""
    found: set[str] = set()
    for prefix in prefixes:
        fitting = {name for name in named if f"{name}.".startswith(f"{prefix}.")}
        if not fitting:
            parts = {".".join(name.split(".")[:depth]): None for name in named for depth in (1, 2, 3)}
            rule = "is a part of the model that is trained"
            raise UserError(where, rule, repr(prefix), hint(prefix, parts, "Parts"))
        found |= fitting
    return found


def _still(module: nn.Module, held: set[int]) -> set[nn.Module]:
    """The modules in which nothing is left to train on account of these parameters."""
    found: set[nn.Module] = set()
    for part in module.modules():
        own = list(part.parameters())
        trained = [parameter for parameter in own if parameter.requires_grad and id(parameter) not in held]
        if not trained and any(id(parameter) in held for parameter in own):
            found.update(part.modules())
    return found


def _strings(value: object, where: str) -> tuple[str, ...]:
    if isinstance(value, str) or not isinstance(value, Sequence):
        raise UserError(where, "is a list of names", repr(value), f"Write [{value}]")
    for name in value:
        if not isinstance(name, str):
            raise UserError(where, "is a list of names", repr(name))
    return tuple(value)


def _count(value: object, where: str) -> int | None:
    return None if value is None else check_integer(value, where, 0)
