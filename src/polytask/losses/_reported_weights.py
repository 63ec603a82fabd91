"""The weights that records show, for criteria that report weights of their own too."""

import torch
from torch import Tensor

from polytask.losses._multi_task_loss import MultiTaskLoss


def own_and_effective_weights(criterion: MultiTaskLoss) -> tuple[tuple[str, ...], Tensor, Tensor]:
    """The tasks, their weights before ``loss_weights``, and the effective ones; ``(tasks,)`` each.

    If a subclass overrides ``get_task_weights``, the effective weights are what it returns.

    Args:
        criterion: The criterion.

    Example:
        >>> from torch import nn
        >>> class Reported(MultiTaskLoss):
        ...     def get_task_weights(self):
        ...         return {"a": 1.0, "b": 3.0}
        >>> own_and_effective_weights(Reported({"a": nn.MSELoss(), "b": nn.MSELoss()}, {"b": 2.0}))
        (('a', 'b'), tensor([1.0000, 1.5000]), tensor([1., 3.]))
    """
    if type(criterion).get_task_weights is MultiTaskLoss.get_task_weights:
        return criterion.combination.own_and_effective_weights()
    weights = criterion.get_task_weights()
    effective, names = torch.tensor(list(weights.values())), tuple(weights)
    ones = torch.ones_like(effective)
    factors = criterion.combination.weighed(ones.to(_device(criterion)), names).to(effective)
    return names, effective / factors, effective


def _device(criterion: MultiTaskLoss) -> torch.device:
    factors = criterion.combination.factors
    return torch.device("cpu") if factors is None else factors.device
