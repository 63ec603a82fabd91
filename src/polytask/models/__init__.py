"""Backbones, heads and sharing schemes; every model follows the protocol of `MultiTaskModel`."""

from polytask.models._base import MultiTaskModel
from polytask.models._hard_parameter_sharing import HardParameterSharing, create_hard_sharing_model
from polytask.models._mlp import MLP
from polytask.models._multi_head import MultiHead
from polytask.models._multi_input import MultiInput
from polytask.models._separate import Separate
from polytask.models._simple_cnn import SimpleCNN
from polytask.models._task_head import TaskHead

__all__ = [
    "MLP",
    "HardParameterSharing",
    "MultiHead",
    "MultiInput",
    "MultiTaskModel",
    "Separate",
    "SimpleCNN",
    "TaskHead",
    "create_hard_sharing_model",
]
