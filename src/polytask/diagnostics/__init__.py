"""Recorders of gradients, weights, losses and affinity, and what is read of their records."""

from typing import TYPE_CHECKING

from polytask._lazy import lazy

if TYPE_CHECKING:
    from polytask.diagnostics._affinity import Affinity
    from polytask.diagnostics._gradients import GradientRecorder
    from polytask.diagnostics._grouping import Grouping, group_tasks
    from polytask.diagnostics._per_step import LossRecorder, WeightRecorder
    from polytask.diagnostics._read import (
        Affinities,
        Gramians,
        Values,
        read_affinity,
        read_gradients,
        read_losses,
        read_weights,
    )

_WHERE = {
    "Affinities": "_read",
    "Affinity": "_affinity",
    "GradientRecorder": "_gradients",
    "Gramians": "_read",
    "Grouping": "_grouping",
    "LossRecorder": "_per_step",
    "Values": "_read",
    "WeightRecorder": "_per_step",
    "group_tasks": "_grouping",
    "read_affinity": "_read",
    "read_gradients": "_read",
    "read_losses": "_read",
    "read_weights": "_read",
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
