"""polytask: one PyTorch model, many tasks."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from polytask._errors import RunError, UserError
from polytask._version import __version__

if TYPE_CHECKING:
    from polytask.estimator import MultiTaskEstimator
    from polytask.losses import MultiTaskLoss
    from polytask.optim import parameter_groups
    from polytask.predictor import load
    from polytask.system import System
    from polytask.trainer import MultiTaskTrainer

_WHERE = {
    "MultiTaskEstimator": "polytask.estimator",
    "MultiTaskLoss": "polytask.losses",
    "MultiTaskTrainer": "polytask.trainer",
    "System": "polytask.system",
    "load": "polytask.predictor",
    "parameter_groups": "polytask.optim",
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


def __getattr__(name: str) -> Any:
    # Imported when first used, so that `polytask --help` does not wait for torch.
    if name not in _WHERE:
        raise AttributeError(f"module 'polytask' has no attribute '{name}'")
    return getattr(import_module(_WHERE[name]), name)
