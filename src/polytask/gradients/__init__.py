"""Gradients of several tasks: the engine that fills ``.grad`` for every kind of weighting.

Begin with `Engine`: it connects losses, model and weighting. Inside of it, ``_backward_step`` brings a call's
losses into one form, ``_graph`` and ``_sharing`` find the shared parameters, ``_update`` chooses what is
computed, ``_levels`` and ``_jacobian`` compute the tasks' gradients, ``_combine`` calls the weighting, and
``_observer`` passes the Gramian on to recorders.

This package uses torch only. It knows weightings by their three bases and by what they declare, never by
their names, and knows nothing of Lightning, data loaders, metrics or configs.
"""

from polytask.gradients._engine import Engine
from polytask.gradients._graph import leaves_of
from polytask.gradients._observer import ObservedStep, StepObserver

__all__ = ["Engine", "ObservedStep", "StepObserver", "leaves_of"]
