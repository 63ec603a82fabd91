"""Recorders of gradients, weights, losses and affinity; reading their records; grouping tasks by affinity.

What it is for: recorders are Lightning callbacks that write files into a run's folder, and the readers
return them as arrays. Reading imports no torch. It knows no configs, comparisons or figures, and changes no
training.

Begin with `Recorder` in ``_recorder.py``: a recorder keeps values on the device and writes them at the end
of each epoch. ``_gradients.py``, ``_affinity.py`` and ``_per_step.py`` are the recorders, ``_columns.py`` has
the columns of their files, ``_store.py`` writes the files, ``_readers.py`` reads them, ``_grouping.py``
searches for groups of tasks.
"""

from typing import TYPE_CHECKING

from polytask._lazy import lazy

if TYPE_CHECKING:
    from polytask.diagnostics._affinity import Affinity
    from polytask.diagnostics._gradients import GradientRecorder
    from polytask.diagnostics._grouping import Grouping, group_tasks
    from polytask.diagnostics._per_step import LossRecorder, WeightRecorder
    from polytask.diagnostics._readers import (
        Affinities,
        Gramians,
        Values,
        read_affinity,
        read_gradients,
        read_losses,
        read_weights,
    )

_WHERE = {
    "Affinities": "_readers",
    "Affinity": "_affinity",
    "GradientRecorder": "_gradients",
    "Gramians": "_readers",
    "Grouping": "_grouping",
    "LossRecorder": "_per_step",
    "Values": "_readers",
    "WeightRecorder": "_per_step",
    "group_tasks": "_grouping",
    "read_affinity": "_readers",
    "read_gradients": "_readers",
    "read_losses": "_readers",
    "read_weights": "_readers",
}

__all__ = [
    "Affinities",
    "Affinity",
    "GradientRecorder",
    "Gramians",
    "Grouping",
    "LossRecorder",
    "Values",
    "WeightRecorder",
    "group_tasks",
    "read_affinity",
    "read_gradients",
    "read_losses",
    "read_weights",
]

# Reading records must not import torch.
__getattr__ = lazy(__name__, _WHERE)
