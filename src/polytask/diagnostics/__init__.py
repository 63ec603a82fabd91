"""Recorders of gradients, weights, losses and affinity, and what is read of their records."""

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
