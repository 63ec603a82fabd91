"""Criteria for many tasks: a loss per task, missing labels left out, a weighting on top."""

from polytask.batch import Targets
from polytask.losses._multi_task_loss import MultiTaskLoss
from polytask.losses._presets import DynamicWeightAverage, GradNorm, UncertaintyWeighting
from polytask.losses._task_losses import TaskLosses

__all__ = [
    "DynamicWeightAverage",
    "GradNorm",
    "MultiTaskLoss",
    "Targets",
    "TaskLosses",
    "UncertaintyWeighting",
]
