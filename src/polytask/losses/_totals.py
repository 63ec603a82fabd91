"""Two totals of a stage: one that is comparable between epochs, and the scalar that is minimised."""

from collections.abc import Mapping

from torch import nn

from polytask._tasks import SHARING
from polytask.losses._multi_task_loss import MultiTaskLoss
from polytask.weighting import LossWeighting


def has_objective(criterion: nn.Module) -> bool:
    """Whether what a criterion minimises may differ from the sum of its losses, and change between steps.

    It may if the criterion has a weighting of losses that is no plain sum, or makes its total itself and has
    parameters to train or a weighting. A total that is made in another way is comparable, as far as is known.

    Args:
        criterion: The criterion.

    Example:
        >>> from polytask.weighting import UW, UPGrad
        >>> losses = {"digit": nn.CrossEntropyLoss()}
        >>> [has_objective(MultiTaskLoss(losses, weighting=one)) for one in (None, UW(), UPGrad())]
        [False, True, False]
    """
    if not isinstance(criterion, MultiTaskLoss):
        return _learns(criterion)
    weighting = criterion.weighting
    plain = isinstance(weighting, LossWeighting) and weighting.is_sum
    if criterion.combination.own_total:
        return isinstance(weighting, LossWeighting) and not plain
    return not plain or _learns(criterion)


def with_total(criterion: nn.Module, losses: Mapping[str, float]) -> dict[str, float]:
    """Losses by task with a ``total`` that no weighting changes.

    Args:
        criterion: The criterion that computed the losses.
        losses: Mean losses by task, auxiliary ones, and the ``total`` that was minimised.

    Example:
        >>> from polytask.weighting import UW
        >>> criterion = MultiTaskLoss({"a": nn.MSELoss(), "b": nn.MSELoss()}, {"b": 0.5}, weighting=UW())
        >>> with_total(criterion, {"a": 1.0, "b": 4.0, "total": -1.0})
        {'a': 1.0, 'b': 4.0, 'total': 3.0}
    """
    if isinstance(criterion, MultiTaskLoss):
        if criterion.combination.own_total or has_objective(criterion):
            return criterion.combination.with_total(losses)
    elif has_objective(criterion) and len(losses) > 1:
        return {**losses, "total": sum(loss for name, loss in losses.items() if name != "total")}
    return dict(losses)


def objective(criterion: nn.Module, losses: Mapping[str, float]) -> float:
    """The scalar that a criterion makes of mean losses, as far as it can be computed from them.

    Args:
        criterion: The criterion that computed the losses.
        losses: Mean losses by task, auxiliary ones, and the mean ``total``, which is returned if the scalar
            is not made by the criterion's weighting alone.

    Example:
        >>> from polytask.weighting import GLS
        >>> criterion = MultiTaskLoss({"a": nn.MSELoss(), "b": nn.MSELoss()}, weighting=GLS())
        >>> objective(criterion, {"a": 1.0, "b": 4.0, "total": 0.0})
        2.0
    """
    if not isinstance(criterion, MultiTaskLoss) or not criterion.combination.own_total:
        return losses["total"]
    made = criterion.combination.objective(losses)
    return losses["total"] if made is None else made + losses.get(SHARING, 0.0)


def _learns(criterion: nn.Module) -> bool:
    return any(parameter.requires_grad for parameter in criterion.parameters())
