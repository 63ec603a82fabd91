"""`System`: model, criterion, metrics, adapters, loaders and optimizer as one LightningModule.

Begin with `System.training_step` in ``_system.py``; `TaskBackward` fills ``.grad``, `StageLog` keeps losses
and metrics. This room knows no configs, run folders or command line.
"""

from typing import TYPE_CHECKING

from polytask._lazy import lazy

if TYPE_CHECKING:
    from polytask.system._system import System

__all__ = ["System"]

# A loaded model predicts with modules of this room, without Lightning.
__getattr__ = lazy(__name__, {"System": "_system"})
