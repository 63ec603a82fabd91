"""`System`: model, criterion, metrics, adapters, loaders and optimizer as one LightningModule.

What it is for: it takes each batch through model, criterion, weighting and metrics inside Lightning's
automatic optimization. It knows no configs, run folders, command line or plots.

Begin with `System` in ``_system.py``. What happens between a batch and ``.grad``:

1. ``System.on_before_batch_transfer`` finds inputs and targets and counts the labels, on the host
   (`polytask.adapters.BatchAdapter`).
2. ``System.training_step`` calls the model (``_forward.py``) and, through the criterion's adapter, the
   `polytask.losses.MultiTaskLoss`, which gives a loss for each task that has a label.
3. `StageLog` (``_stage_log.py``) keeps losses and rows for the logs, on the device.
4. ``System.backward`` hands the losses to `TaskBackward` (``_task_backward.py``). With a weighting of losses
   it calls ``loss.backward()``; with a gradient-based weighting the `polytask.gradients.Engine` fills
   ``.grad``. Several processes then average ``.grad``.
5. Lightning clips and steps the optimizer; ``TaskBackward.after_step`` passes the losses to the weighting.

The other modules: ``_stages.py`` (arguments given once or by stage), ``_task_order.py``, ``_fit_checks.py``
(checks before a fit), ``_stage_loaders.py``, ``_optimizers.py``, ``_sharing_penalty.py``, ``_nonfinite.py``.
"""

from typing import TYPE_CHECKING

from polytask._lazy import lazy

if TYPE_CHECKING:
    from polytask.system._system import System

__all__ = ["System"]

# A loaded model predicts with modules of this room, without Lightning.
__getattr__ = lazy(__name__, {"System": "_system"})
