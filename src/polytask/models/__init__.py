"""Backbones, heads and sharing schemes; every model follows the protocol of `MultiTaskModel`."""

from polytask.models._base import MultiTaskModel
from polytask.models._cgc import CGC
from polytask.models._dselect_k import DSelectK
from polytask.models._expert_load import ExpertLoad
from polytask.models._hard_parameter_sharing import HardParameterSharing, create_hard_sharing_model
from polytask.models._mlp import MLP
from polytask.models._mmoe import MMoE
from polytask.models._multi_head import MultiHead
from polytask.models._ple import PLE
from polytask.models._separate import Separate
from polytask.models._simple_cnn import SimpleCNN
from polytask.models._task_head import TaskHead

__all__ = [
    "CGC",
    "MLP",
    "PLE",
    "DSelectK",
    "ExpertLoad",
    "HardParameterSharing",
    "MMoE",
    "MultiHead",
    "MultiTaskModel",
    "Separate",
    "SimpleCNN",
    "TaskHead",
    "create_hard_sharing_model",
]
