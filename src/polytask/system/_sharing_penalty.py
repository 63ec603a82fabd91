"""The penalty that a model adds to the total, logged as a separate loss."""

import inspect
from collections.abc import Callable, Mapping

import torch
from torch import Tensor, nn

from polytask._errors import UserError
from polytask._tasks import SHARING

Penalty = Callable[[], Tensor]


def penalty_of(model: nn.Module) -> Penalty | None:
    """The model's method ``sharing_penalty``; None if there is none, or it returns None.

    Args:
        model: The model.

    Raises:
        UserError: If it returns anything but one number or None.

    Example:
        >>> from polytask.models import SoftParameterSharing
        >>> penalty_of(nn.Linear(1, 1)) is None
        True
        >>> penalty_of(SoftParameterSharing([nn.Linear(1, 1), nn.Linear(1, 1)]))().shape
        torch.Size([])
    """
    penalty = getattr(model, "sharing_penalty", None)
    if not inspect.ismethod(penalty):
        return None
    with torch.no_grad():
        value = penalty()
    if value is None:
        return None
    if not isinstance(value, Tensor) or value.numel() != 1:
        found = f"shape {tuple(value.shape)}" if isinstance(value, Tensor) else f"a {type(value).__name__}"
        raise UserError("model.sharing_penalty", "must return a tensor with one element, or None", found)
    return penalty


def with_penalty(
    penalty: Penalty | None, total: Tensor, losses: Mapping[str, Tensor]
) -> tuple[Tensor, dict[str, Tensor]]:
    """The total plus the penalty, and the losses with the penalty as a further entry.

    Args:
        penalty: What `penalty_of` returned.
        total: The total without the penalty.
        losses: The losses that the total is made of.

    Raises:
        UserError: If the criterion returns a loss of the same name.

    Example:
        >>> with_penalty(lambda: torch.tensor(0.5), torch.tensor(2.0), {"digit": torch.tensor(2.0)})
        (tensor(2.5000), {'digit': tensor(2.), 'sharing': tensor(0.5000)})
    """
    if penalty is None:
        return total, dict(losses)
    if SHARING in losses:
        rule = f"must not return a loss called '{SHARING}', which is the penalty of the model"
        raise UserError("criterion", rule, None, "Rename the loss")
    value = penalty().reshape(())
    return total + value, {**losses, SHARING: value}
