"""`System`: model, criterion, metrics, adapters, loaders and optimizer as one LightningModule.

Begin with `System.training_step` in ``_system.py``; `TaskBackward` fills ``.grad``, `StageLog` keeps losses
and metrics. This room knows no configs, run folders or command line.
"""

from polytask.system._system import System

__all__ = ["System"]
