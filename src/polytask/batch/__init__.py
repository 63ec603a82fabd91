"""A batch on its way through a step: inputs, targets with their label masks, and row counts.

Begin with `Batch`. This room knows torch only: no losses, no models, no Lightning.
"""

from polytask.batch._batch import (
    Accessor,
    Batch,
    JoinedBatch,
    TaskBatches,
    access,
    check_accessor,
    count_rows,
    describe,
    find,
    move,
    take_rows,
)
from polytask.batch._labels import HALF, IGNORE_INDEX, Labels, is_missing
from polytask.batch._targets import Targets

__all__ = [
    "HALF",
    "IGNORE_INDEX",
    "Accessor",
    "Batch",
    "JoinedBatch",
    "Labels",
    "Targets",
    "TaskBatches",
    "access",
    "check_accessor",
    "count_rows",
    "describe",
    "find",
    "is_missing",
    "move",
    "take_rows",
]
