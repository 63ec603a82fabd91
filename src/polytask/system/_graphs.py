"""Losses that no parameter would learn from."""

import warnings
from collections.abc import Iterable, Sequence

from torch import Tensor

from polytask._errors import UserError

_RULE = "the loss must depend on a parameter that is trained"


class GraphCheck:
    """Refuses a training step whose losses do not depend on a parameter that is trained.

    If parameters are frozen, a task may be meant to rest; it is then named in one warning, as long as other
    tasks are trained.

    Example:
        >>> import torch
        >>> GraphCheck().check(["digit"], 1, torch.ones(()), frozen=False)
        Traceback (most recent call last):
        polytask._errors.UserError: task 'digit': the loss must depend on a parameter that is trained, got ...
    """

    def __init__(self) -> None:
        self._named: set[str] = set()

    def check(self, detached: Sequence[str], count: int, total: Tensor, frozen: bool) -> None:
        """Check the losses of a step, of which some, or the total, have no graph.

        Args:
            detached: The tasks whose losses have none.
            count: The number of tasks in the step.
            total: The total.
            frozen: Whether there are parameters that are not trained.

        Raises:
            UserError: If this cannot be meant.

        Warns:
            UserWarning: Once for each such task, if parameters are frozen.
        """
        if detached and frozen and len(detached) < count:
            for name in [name for name in detached if name not in self._named]:
                self._named.add(name)
                warnings.warn(
                    f"task '{name}' is not trained: its loss depends on frozen parameters only", stacklevel=2
                )
            return
        where = "total loss"
        if detached:
            where = f"task{'s' * (len(detached) > 1)} {', '.join(map(repr, detached))}"
        fix = "Remove detach() and no_grad() from the model"
        if frozen:
            fix += ", or train some of its parameters"
        raise UserError(where, _RULE, "one without a gradient", fix)

    def check_reached(self, parameters: Iterable[Tensor]) -> bool:
        """Check that a backward has reached a parameter.

        Args:
            parameters: All parameters.

        Raises:
            UserError: If none has a gradient.
        """
        if all(parameter.grad is None for parameter in parameters):
            fix = "Remove detach() from the model"
            raise UserError("total loss", _RULE, "a graph without parameters", fix)
        return True
