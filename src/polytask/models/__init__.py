"""Backbones, heads and sharing schemes; every model follows the protocol of `MultiTaskModel`.

Begin with ``_base``: a model represents its input once and runs one head per task. ``_multi_head`` is the
simplest model. Each architecture has a file; ``_taps`` stops a backbone behind named modules, ``_towers``
holds what architectures with one backbone per task have in common, ``_experts`` and ``_gate`` that of
mixtures of experts.

This package uses torch only; timm, torchvision and transformers are imported by the backbone that uses them.
A model knows the tasks' names, and nothing of losses, weightings, metrics or trainers.
"""

from polytask.models._base import MultiTaskModel
from polytask.models._cgc import CGC
from polytask.models._cross_stitch import CrossStitch
from polytask.models._dense_head import DenseHead
from polytask.models._dselect_k import DSelectK
from polytask.models._expert_load import ExpertLoad
from polytask.models._film import FiLM
from polytask.models._hard_parameter_sharing import HardParameterSharing, create_hard_sharing_model
from polytask.models._heads import ClassificationHead, MultiLabelHead, RegressionHead
from polytask.models._learning_to_branch import LearningToBranch
from polytask.models._lora import LoRA
from polytask.models._mlp import MLP
from polytask.models._mmoe import MMoE
from polytask.models._mtan import MTAN
from polytask.models._multi_head import MultiHead
from polytask.models._multi_input import MultiInput
from polytask.models._nddr import NDDR
from polytask.models._ordinal_head import OrdinalHead
from polytask.models._ple import PLE
from polytask.models._pretrained import HuggingFaceEncoder, TimmBackbone, TorchvisionBackbone
from polytask.models._separate import Separate
from polytask.models._simple_cnn import SimpleCNN
from polytask.models._sluice import Sluice
from polytask.models._soft_parameter_sharing import SoftParameterSharing, create_soft_sharing_model
from polytask.models._task_head import TaskHead
from polytask.models._token_head import TokenHead

__all__ = [
    "CGC",
    "MLP",
    "MTAN",
    "NDDR",
    "PLE",
    "ClassificationHead",
    "CrossStitch",
    "DSelectK",
    "DenseHead",
    "ExpertLoad",
    "FiLM",
    "HardParameterSharing",
    "HuggingFaceEncoder",
    "LearningToBranch",
    "LoRA",
    "MMoE",
    "MultiHead",
    "MultiInput",
    "MultiLabelHead",
    "MultiTaskModel",
    "OrdinalHead",
    "RegressionHead",
    "Separate",
    "SimpleCNN",
    "Sluice",
    "SoftParameterSharing",
    "TaskHead",
    "TimmBackbone",
    "TokenHead",
    "TorchvisionBackbone",
    "create_hard_sharing_model",
    "create_soft_sharing_model",
]
