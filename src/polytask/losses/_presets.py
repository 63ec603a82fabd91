"""Criteria that bring a weighting along, under the names and arguments of the literature."""

from collections.abc import Mapping
from typing import Literal

from torch import nn

from polytask import weighting
from polytask._tasks import TaskType
from polytask.losses._multi_task_loss import MultiTaskLoss


class UncertaintyWeighting(MultiTaskLoss):
    """A `MultiTaskLoss` with the weighting `polytask.weighting.UW`.

    Args:
        task_losses: A loss module for each task, or one that serves every task of the model.
        task_types: ``regression`` or ``classification`` by task; the others are regressions.
        init_log_vars: Initial log variance by task, no unit; 0 for the others.
        reduction: How a task's labelled elements combine: ``mean`` or ``sum``.

    Raises:
        UserError: If an argument is invalid.

    Example:
        >>> losses = {"digit": nn.CrossEntropyLoss(), "height": nn.MSELoss()}
        >>> criterion = UncertaintyWeighting(losses, {"digit": "classification"})
        >>> criterion.get_task_weights()
        {'digit': 1.0, 'height': 0.5}

    Reference:
        Kendall, Gal, Cipolla. Multi-Task Learning Using Uncertainty to Weigh Losses for Scene
        Geometry and Semantics. CVPR 2018, equations 7 and 10.

    Deviations:
        Those of `polytask.weighting.UW`.
    """

    def __init__(
        self,
        task_losses: Mapping[str, nn.Module] | nn.Module,
        task_types: Mapping[str, TaskType] | None = None,
        init_log_vars: Mapping[str, float] | None = None,
        reduction: Literal["mean", "sum"] = "mean",
    ) -> None:
        uw = weighting.UW(task_types, init_log_vars)
        super().__init__(task_losses, reduction=reduction, weighting=uw)

    def get_uncertainties(self) -> dict[str, float]:
        r"""The learned noise :math:`\sigma_i` by task, in the unit of the targets."""
        uw = self.weighting
        assert isinstance(uw, weighting.UW)
        return uw.get_uncertainties()


class DynamicWeightAverage(MultiTaskLoss):
    """A `MultiTaskLoss` with the weighting `polytask.weighting.DWA`.

    Outside a `polytask.System`, call ``criterion.weighting.on_epoch_end`` with each epoch's mean losses.

    Args:
        task_losses: A loss module for each task, or one that serves every task of the model.
        temperature: No unit, above 0; large values make the weights equal.
        window_size: Epochs from the oldest mean in use to now, 2 or more.
        reduction: How a task's labelled elements combine: ``mean`` or ``sum``.

    Raises:
        UserError: If an argument is invalid.

    Example:
        >>> criterion = DynamicWeightAverage({"digit": nn.CrossEntropyLoss(), "height": nn.MSELoss()})
        >>> criterion.get_task_weights()
        {'digit': 1.0, 'height': 1.0}

    Reference:
        Liu, Johns, Davison. End-to-End Multi-Task Learning with Attention. CVPR 2019, equation 7.

    Deviations:
        Those of `polytask.weighting.DWA`.
    """

    def __init__(
        self,
        task_losses: Mapping[str, nn.Module] | nn.Module,
        temperature: float = 2.0,
        window_size: int = 2,
        reduction: Literal["mean", "sum"] = "mean",
    ) -> None:
        dwa = weighting.DWA(temperature, window_size)
        super().__init__(task_losses, reduction=reduction, weighting=dwa)


class GradNorm(MultiTaskLoss):
    """A `MultiTaskLoss` with the weighting `polytask.weighting.GradNorm`, which requires gradients.

    The two share the paper's name. This class is a criterion, used as ``loss_fn``. The other is the weighting
    alone, used as ``MultiTaskLoss(..., weighting=GradNorm(alpha))``, which is what this class constructs.

    Args:
        task_losses: A loss module for each task, or one that serves every task of the model.
        alpha: How strongly the rates of the tasks are balanced, no unit, 0 or more.
        reduction: How a task's labelled elements combine: ``mean`` or ``sum``.

    Raises:
        UserError: If an argument is invalid; at the second training step without an engine.

    Example:
        >>> criterion = GradNorm({"digit": nn.CrossEntropyLoss(), "height": nn.MSELoss()})
        >>> criterion.get_task_weights()
        {'digit': 1.0, 'height': 1.0}

    Reference:
        Chen, Badrinarayanan, Lee, Rabinovich. GradNorm: Gradient Normalization for Adaptive Loss
        Balancing in Deep Multitask Networks. ICML 2018, equations 1 and 2 and algorithm 1.

    Deviations:
        Those of `polytask.weighting.GradNorm`.
    """

    def __init__(
        self,
        task_losses: Mapping[str, nn.Module] | nn.Module,
        alpha: float = 1.5,
        reduction: Literal["mean", "sum"] = "mean",
    ) -> None:
        super().__init__(task_losses, reduction=reduction, weighting=weighting.GradNorm(alpha))
