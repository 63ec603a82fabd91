"""A loss for each task, missing labels left out, and one total to minimise.

Begin with `MultiTaskLoss`, which holds the other parts: ``measurement`` computes a batch's losses by task,
with one ``MaskedLoss`` for each task (``_masked_loss.py``, which is where a missing label is masked);
``combination`` applies ``loss_weights`` and the weighting to them. Which labels are missing is decided in
`polytask.batch`.

This room imports only torch. It knows no model, no engine of gradients and no Lightning.
"""

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
