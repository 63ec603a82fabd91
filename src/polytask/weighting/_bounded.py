"""Losses that must stay above a bound, since a logarithm or an inverse is taken of them."""

import math
from abc import ABC
from collections.abc import Iterable
from typing import ClassVar

import torch
from torch import Tensor, nn

from polytask._errors import UserError
from polytask.weighting._base import LossWeighting
from polytask.weighting._state import pick, put


class BoundCheck(nn.Module):
    """Records on the device whether losses fell to a bound; read on the host by `check` only.

    Args:
        bounds: The bound that each task's losses must stay above.

    Example:
        >>> bounds = BoundCheck([0.0, 0.0])
        >>> bounds.note(torch.tensor([-1.0]), [1])
        >>> bounds.check("GLS", ["digit", "depth"], "Use another weighting")
        Traceback (most recent call last):
        polytask._errors.UserError: GLS: the losses of task 'depth' must stay above 0, got -1. Use
        another weighting.
    """

    lowest: Tensor

    def __init__(self, bounds: list[float]) -> None:
        super().__init__()
        self.bounds = bounds
        self.register_buffer("lowest", torch.full((len(bounds),), math.inf), persistent=False)

    def note(self, losses: Tensor, indices: list[int] | None) -> None:
        """Keep the lowest losses.

        Args:
            losses: Losses of the present tasks, without gradient.
            indices: Their indices among all tasks; None if all are present.
        """
        put(self.lowest, indices, torch.fmin(pick(self.lowest, indices), losses))

    def check(self, where: str, names: Iterable[str], fix: str) -> None:
        """Raise if a loss fell to its bound since the last call.

        Args:
            where: The method, for the message.
            names: All tasks, in order.
            fix: The fix that the message names.

        Raises:
            UserError: With the first such task and its lowest loss.
        """
        lowest = self.lowest.tolist()
        self.lowest.fill_(math.inf)
        for name, loss, bound in zip(names, lowest, self.bounds, strict=True):
            if loss <= bound:
                rule = f"the losses of task '{name}' must stay above {bound:g}"
                raise UserError(where, rule, f"{loss:g}", fix)


class BoundedLossWeighting(LossWeighting, ABC):
    """A loss weighting that takes logarithms or inverses of losses, which must stay above a bound.

    Attributes:
        fix: The fix that the message names if a loss fell to its bound.
    """

    fix: ClassVar[str] = "Use positive losses or another weighting"

    def setup(self, names: Iterable[str]) -> None:
        """Set the bounds of the tasks' losses."""
        super().setup(names)
        self.bound_check = BoundCheck(self.bounds_by_task())

    def bounds_by_task(self) -> list[float]:
        """The bounds that the tasks' losses must stay above, in order; 0 here."""
        return [0.0] * len(self.names)

    def observe(self, losses: Tensor, indices: list[int] | None) -> None:
        """Record losses that are not above their bounds."""
        self.bound_check.note(losses, indices)
        self._check_now(losses)

    def check(self) -> None:
        """Raise if a loss was not above its bound since the last call."""
        self.bound_check.check(type(self).__name__, self.names, self.fix)
