"""The hooks of a weighting in a training loop of the user's own."""

from collections.abc import Sequence

import torch
from torch import Tensor

from polytask._checks import check_integer
from polytask._errors import UserError
from polytask.weighting import Weighting


class OwnLoop:
    """Calls a weighting's hooks between the steps of a loop, or refuses a loop in which it would never move.

    Args:
        weighting: The weighting.
        steps_per_epoch: The number of optimizer steps in an epoch, for a weighting that receives the losses
            of epochs.

    Raises:
        UserError: If the number is not 1 or more.

    Example:
        >>> from polytask.weighting import DWA
        >>> weighting = DWA()
        >>> weighting.setup(["a", "b"])
        >>> OwnLoop(weighting, None).begin()
        Traceback (most recent call last):
        polytask._errors.UserError: steps_per_epoch: is required for DWA, which receives ...
    """

    def __init__(self, weighting: Weighting, steps_per_epoch: int | None) -> None:
        self.weighting = weighting
        self.steps_per_epoch = steps_per_epoch
        if steps_per_epoch is not None:
            self.steps_per_epoch = check_integer(steps_per_epoch, "steps_per_epoch", 1)
        kind = type(weighting)
        self._of_steps = kind.after_step is not Weighting.after_step
        self._of_epochs = kind.on_epoch_end is not Weighting.on_epoch_end
        self._owed: tuple[tuple[str, ...], Tensor] | None = None
        self._versions: list[int] = []
        self._sums: dict[str, tuple[Tensor, int]] = {}
        self._steps = 0
        self._guessed = False

    def name(self, tasks: Sequence[str], given: bool) -> None:
        """Set the tasks of the weighting, unless they are set.

        Args:
            tasks: All tasks, or those of the first step.
            given: Whether the user has named them before the first step.

        Raises:
            UserError: If the weighting has other tasks, or learns parameters, which the optimizer would lack.
        """
        method = type(self.weighting).__name__
        known = self.weighting.names
        if known:
            if given and tuple(tasks) != known:
                rule = f"must be those of the {method}, {', '.join(known)}"
                raise UserError(
                    "tasks", rule, ", ".join(tasks), "Leave them out, or create another weighting"
                )
            for name in [name for name in tasks if self._guessed and name not in known]:
                rule = "are required if the first step does not have them all"
                raise UserError(
                    "tasks", rule, f"'{name}' after {', '.join(known)}", "Pass tasks=[...] to Engine"
                )
            return
        if not tasks:
            return
        self._guessed = not given
        self.weighting.setup(tasks)
        if not given and next(self.weighting.parameters(), None) is not None:
            raise UserError(
                "tasks",
                f"are required for {method}, whose parameters must exist before the optimizer",
                "none",
                "Pass them to Engine, and weighting.parameters() to the optimizer",
            )

    def begin(self) -> None:
        """Begin a step: do what the last one is still owed.

        Raises:
            UserError: If the weighting was not given what it needs, or the optimizer lacks its parameters.
        """
        method = type(self.weighting).__name__
        if self._of_epochs and self.steps_per_epoch is None:
            rule = f"is required for {method}, which receives the losses of epochs"
            raise UserError(
                "steps_per_epoch", rule, "none", "Pass it to Engine: the optimizer steps of an epoch"
            )
        if self._versions:
            unchanged = [
                parameter
                for parameter, version in zip(self.weighting.parameters(), self._versions, strict=True)
                if parameter.grad is not None and parameter._version == version
            ]
            if unchanged:
                rule = f"must have the parameters of {method}, which learns its weights"
                fix = "Create it with [*model.parameters(), *weighting.parameters()]"
                raise UserError("optimizer", rule, "an optimizer that leaves them unchanged", fix)
        if self._owed is None:
            return
        names, losses = self._owed
        if self.weighting.remeasures:
            rule = f"must be called after each optimizer step for {method}"
            fix = "Pass it the losses of the same batch, computed again after optimizer.step()"
            raise UserError("Engine.after_step", rule, "no call", fix)
        self.after_step(names, losses)

    def end(self, names: Sequence[str], losses: Tensor) -> None:
        """End the backward of a step.

        Args:
            names: The present tasks.
            losses: Their losses, ``(tasks,)``, without a graph.
        """
        self._versions = [parameter._version for parameter in self.weighting.parameters()]
        if self._of_steps:
            self._owed = tuple(names), losses
        if not self._of_epochs:
            return
        for name, loss in zip(names, losses, strict=True):
            sum_, count = self._sums.get(name, (torch.zeros_like(loss), 0))
            self._sums[name] = sum_ + loss, count + 1
        self._steps += 1
        if self._steps % (self.steps_per_epoch or 1) == 0:
            present = tuple(name for name in self.weighting.names if name in self._sums)
            means = torch.stack([self._sums[name][0] / self._sums[name][1] for name in present])
            self._sums = {}
            self.weighting.on_epoch_end(means, present)

    def after_step(self, names: Sequence[str], losses: Tensor) -> None:
        """Pass losses to the weighting after an optimizer step.

        Args:
            names: The present tasks.
            losses: Their losses, ``(tasks,)``.
        """
        self._owed = None
        with torch.no_grad():
            self.weighting.after_step(losses.detach(), names)
