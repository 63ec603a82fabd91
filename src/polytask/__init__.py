"""polytask: one PyTorch model, many tasks."""

from typing import TYPE_CHECKING

from polytask._errors import RunError, UserError
from polytask._lazy import lazy
from polytask._version import __version__

if TYPE_CHECKING:
    from polytask.estimator import MultiTaskEstimator
    from polytask.losses import MultiTaskLoss
    from polytask.optim import parameter_groups
    from polytask.predictor import load
    from polytask.system import System
    from polytask.trainer import MultiTaskTrainer

_WHERE = {
    "MultiTaskEstimator": "estimator",
    "MultiTaskLoss": "losses",
    "MultiTaskTrainer": "trainer",
    "System": "system",
    "load": "predictor",
    "parameter_groups": "optim",
}

__all__ = [
    "MultiTaskEstimator",
    "MultiTaskLoss",
    "MultiTaskTrainer",
    "RunError",
    "System",
    "UserError",
    "__version__",
    "load",
    "parameter_groups",
]

# `polytask --help` must not import torch.
__getattr__ = lazy(__name__, _WHERE)
