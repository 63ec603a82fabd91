"""Records of the tasks' gradients: their Gramians."""

import warnings
from abc import abstractmethod
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, Literal

import pytorch_lightning as pl
import torch
from torch import Tensor, nn

from polytask._errors import UserError, hint
from polytask.diagnostics._columns import GRADIENTS, Columns
from polytask.diagnostics._recorder import Recorder
from polytask.gradients import ObservedStep, StepObserver
from polytask.system import System
from polytask.system._task_backward import TaskBackward
from polytask.weighting._base import Gradients

_NAMES = {"parameters": "shared", "representation": "representation", "last_shared": "last_shared"}
LayerGroups = Literal["layers"] | Mapping[str, str | Sequence[str]]


class GramianRecorder(Recorder):
    """Records the Gramians of steps."""

    def __init__(self, every: int, folder: str | Path | None) -> None:
        super().__init__(every, folder)
        self._observer: StepObserver | None = None
        self._system: System | None = None
        self._asked = False

    @abstractmethod
    def level_of(self, trainer: pl.Trainer, system: System, task_backward: TaskBackward) -> Gradients:
        """The level of the gradients of the Gramian."""

    @abstractmethod
    def look(self, trainer: pl.Trainer, system: System, seen: ObservedStep) -> None:
        """Record a step.

        Args:
            trainer: The trainer.
            system: The System.
            seen: The step's Gramian, losses and gradients.
        """

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Begin to observe the engine."""
        super().on_train_start(trainer, pl_module)
        task_backward = self.task_backward_of(pl_module)
        assert isinstance(pl_module, System)
        system = pl_module

        def look(seen: ObservedStep) -> None:
            # Methods with several batches per step compute a Gramian for each.
            if self._last != trainer.global_step:
                self.look(trainer, system, seen)

        self._stop_looking(system)
        self._observer = task_backward.engine.observe(self.level_of(trainer, system, task_backward), look)
        self._asked = False

    def on_train_batch_start(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, batch: Any, batch_idx: int
    ) -> None:
        """Request the Gramian if the step is to be recorded."""
        if self._observer is not None:
            self._observer.due = self.due(trainer)
            self._asked |= self._observer.due

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Write, and stop to observe; warn if nothing was recorded."""
        super().on_train_end(trainer, pl_module)
        self._stop_looking(pl_module)
        if self._asked and self._last < 0:
            reason = "no two tasks shared a parameter in a recorded step"
            warnings.warn(f"{type(self).__name__} recorded nothing: {reason}", stacklevel=2)

    def on_exception(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, exception: BaseException
    ) -> None:
        """Write the records so far, and stop to observe."""
        self._stop_looking(pl_module)
        super().on_exception(trainer, pl_module, exception)

    def _stop_looking(self, system: pl.LightningModule) -> None:
        if self._observer is not None:
            self.task_backward_of(system).engine.remove_observer(self._observer)
            self._observer = None


class GradientRecorder(GramianRecorder):
    r"""Records inner products of the tasks' gradients in ``gradients.parquet``.

    Recorded is the Gramian :math:`G = J J^\top` of the losses times their ``loss_weights``; `read_gradients`
    computes from it the norms :math:`\sqrt{G_{ii}}`, the cosines :math:`G_{ij} / \sqrt{G_{ii} G_{jj}}`, the
    conflict rate and the condition.

    If the weighting computes the gradients at this level in the step, they are reused. Otherwise a recorded
    step costs one backward pass for each task: over the heads alone for the representation, over the whole
    model for the parameters. There is no additional forward, and the training does not change in any bit;
    but each backward runs the model's hooks, and repeats the forward of activation checkpoints.

    Args:
        every: The number of optimizer steps per recorded step.
        level: The gradients of the Gramian: those of all shared ``parameters``, or of the
            ``representation``, the tensors at which the tasks' graphs divide. If None, those that the
            weighting computes; if it computes none, the representation of a model with ``heads`` (on one
            device, without accumulation), else the parameters.
        groups: Groups of layers whose Gramians are recorded too, with their name in the column ``group``: a
            mapping from names to a module's path in the model, or several; or ``layers`` for each module
            with shared parameters, by its path. The level is then ``parameters``.
        folder: The folder of the file; ``records`` in the run's folder if None.

    Raises:
        UserError: If an argument is invalid; at the start of a fit, if the criterion is not a
            `polytask.losses.MultiTaskLoss` or a group names no module.

    Example:
        >>> GradientRecorder(every=100, groups={"stem": "backbone.0"}).file
        'gradients.parquet'
    """

    file: ClassVar[str] = "gradients.parquet"
    columns: ClassVar[Columns] = GRADIENTS

    def __init__(
        self,
        every: int = 50,
        level: Literal["parameters", "representation"] | None = None,
        groups: LayerGroups | None = None,
        folder: str | Path | None = None,
    ) -> None:
        super().__init__(every, folder)
        if level not in (None, "parameters", "representation"):
            rule = "must be 'parameters' or 'representation'"
            raise UserError("GradientRecorder.level", rule, repr(level))
        if groups is not None and level == "representation":
            rule = "must not be given with the representation"
            raise UserError(
                "GradientRecorder.groups", rule, "level='representation'", "Leave one of them out"
            )
        self.level: Gradients | None = "parameters" if groups is not None else level
        self.groups = None if groups is None else _checked(groups)

    def on_fit_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Check that the groups exist in the model.

        Raises:
            UserError: If a module of a group does not exist.
        """
        super().on_fit_start(trainer, pl_module)
        assert isinstance(pl_module, System)
        known = dict(pl_module.model.named_modules())
        for paths in (self.groups or {}).values():
            for path in paths:
                if path not in known:
                    rule = f"no module of the model is called '{path}'"
                    raise UserError("GradientRecorder.groups", rule, None, hint(path, filter(None, known)))

    def level_of(self, trainer: pl.Trainer, system: System, task_backward: TaskBackward) -> Gradients:
        """The given level, or the cheapest.

        Raises:
            UserError: If the representation's gradients cannot be computed in addition to the step.
        """
        own = task_backward.engine.level
        together = trainer.world_size > 1 or trainer.accumulate_grad_batches > 1
        if self.level == "representation" and own != self.level and together:
            rule = "must be 'parameters' with several devices and with accumulated batches"
            raise UserError("GradientRecorder.level", rule, repr(self.level))
        if self.level is not None or own is not None:
            return self.level or own or "parameters"
        parts = len(system.names) > 1 and getattr(system.model, "heads", None) is not None
        return "representation" if parts and not together else "parameters"

    def look(self, trainer: pl.Trainer, system: System, seen: ObservedStep) -> None:
        """Record the Gramian's upper triangle, and those of the groups."""
        assert self._observer is not None
        found = {_NAMES[self._observer.level]: seen.gramian}
        shared = set(seen.shared)
        for name, parameters in self._parameters(system.model).items():
            own = [parameter for parameter in parameters if parameter in shared]
            if own:
                found[name] = seen.gramian_of(own)
        count = range(len(seen.names))
        pairs = [(i, j) for i in count for j in count[i:]]
        keys = [(group, seen.names[i], seen.names[j]) for group in found for i, j in pairs]
        rows, columns = torch.triu_indices(len(count), len(count)).to(seen.gramian.device)
        self.add(trainer, keys, torch.cat([gramian[rows, columns] for gramian in found.values()]))

    def _parameters(self, model: nn.Module) -> dict[str, list[Tensor]]:
        if self.groups is None:
            return {}
        if not self.groups:
            modules = model.named_modules()
            return {path or "model": list(module.parameters(recurse=False)) for path, module in modules}
        return {
            name: [parameter for path in paths for parameter in model.get_submodule(path).parameters()]
            for name, paths in self.groups.items()
        }


def _checked(groups: LayerGroups) -> dict[str, list[str]]:
    """Paths by group; empty for one group per layer."""
    if groups == "layers":
        return {}
    where = "GradientRecorder.groups"
    if not isinstance(groups, Mapping) or not groups:
        raise UserError(where, "must be a mapping from names to modules' paths, or 'layers'", repr(groups))
    found = {name: [paths] if isinstance(paths, str) else list(paths) for name, paths in groups.items()}
    for name, paths in found.items():
        if name in _NAMES.values() or not paths or not all(isinstance(path, str) for path in paths):
            rule = f"must map names other than {', '.join(_NAMES.values())} to paths of modules"
            raise UserError(where, rule, f"{name!r}: {paths!r}")
    return found
