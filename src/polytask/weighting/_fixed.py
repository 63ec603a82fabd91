"""Fixed weights."""

from collections.abc import Iterable, Mapping
from typing import Any

import torch
from torch import Tensor

from polytask._checks import check_number
from polytask._errors import UserError
from polytask._tasks import check_known
from polytask.weighting._base import LossWeighting


class Fixed(LossWeighting):
    r"""A weighted sum of the losses, :math:`\sum_i w_i L_i`, with weights that never change.

    The weights are used as given; they are not normalised.

    Args:
        weights: A weight for each task, no unit; 0 leaves a task out of training.

    Shape:
        - losses: ``(tasks,)``.
        - returns: ``()``.

    Raises:
        UserError: If a weight is negative or not finite, all are 0, a task has none or a
            name is not a task.

    Example:
        >>> import torch
        >>> weighting = Fixed({"digit": 1.0, "parity": 0.5})
        >>> weighting.setup(["digit", "parity"])
        >>> weighting(torch.tensor([1.0, 2.0]))
        tensor(2.)

    When:
        The weights are known, or were tuned.

    Reference:
        Linear scalarisation; no paper.

    Deviations:
        None.
    """

    value: Tensor

    def __init__(self, weights: Mapping[str, float]) -> None:
        super().__init__()
        self.given = check_weights(weights, "Fixed.weights")
        if not any(self.given.values()):
            raise UserError("Fixed.weights", "at least one weight must be above 0", dict(self.given))

    def setup(self, names: Iterable[str]) -> None:
        """Bring the weights into the order of the tasks.

        Args:
            names: All tasks, in order.

        Raises:
            UserError: If a task has no weight, or a weight is that of no task.
        """
        super().setup(names)
        check_known(self.given, self.names, "Fixed.weights")
        for name in self.names:
            if name not in self.given:
                raise UserError("Fixed.weights", f"a weight is required for task '{name}'", dict(self.given))
        weights = torch.tensor([self.given[name] for name in self.names])
        # An argument, not a state: a checkpoint must not restore the weights of another config.
        self.register_buffer("value", weights, persistent=False)

    def scalar(self, losses: Tensor, indices: list[int] | None) -> Tensor:
        """The weighted sum."""
        weights = self.value if indices is None else self.value[indices]
        return (weights.to(losses.dtype) * losses).sum()

    def extra_repr(self) -> str:
        """The weights."""
        return ", ".join(f"{name}={weight:g}" for name, weight in self.given.items())


def check_weights(weights: Mapping[str, float], where: str) -> dict[str, float]:
    """The weights as floats, after each was checked to be finite and not negative.

    Args:
        weights: A weight for each task.
        where: The argument's name, for messages.

    Raises:
        UserError: If the weights are not a mapping, or one is negative or not finite.

    Example:
        >>> check_weights({"digit": 1}, "loss_weights")
        {'digit': 1.0}
    """
    if not isinstance(weights, Mapping):
        raise UserError(where, "must be a mapping from task to weight", repr(weights))
    given = dict[str, Any](weights)
    return {name: check_number(weight, f"{where}.{name}", least=0) for name, weight in given.items()}
