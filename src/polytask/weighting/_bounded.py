"""A flag for losses that a logarithm cannot take."""

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
    """Notes on the device whether losses came down to a bound; read when somebody asks.

    Args:
        bounds: What each task's losses must stay above.

    Example:
        >>> floor = BoundCheck([0.0, 0.0])
        >>> floor.note(torch.tensor([-1.0]), [1])
        >>> floor.check("GLS", ["digit", "depth"], "Use another weighting")
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
        """Raise if a loss came down to its bound since the last call.

        Args:
            where: The method, for the message.
            names: All tasks, in order.
            fix: What to do about it.

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
        fix: What to do where a loss came down to its bound.
    """

    fix: ClassVar[str] = "Use losses that are positive, or another weighting"

    def setup(self, names: Iterable[str]) -> None:
        """Watch the losses of the tasks."""
        super().setup(names)
        self.bound_check = BoundCheck(self.bounds_by_task())

    def bounds_by_task(self) -> list[float]:
        """What each task's losses must stay above, in order; 0 here."""
        return [0.0] * len(self.names)

    def observe(self, losses: Tensor, indices: list[int] | None) -> None:
        """Note losses that are not above their bounds."""
        self.bound_check.note(losses, indices)
        self._check_now(losses)

    def check(self) -> None:
        """Raise if a loss was not above its bound since the last call."""
        self.bound_check.check(type(self).__name__, self.names, self.fix)
