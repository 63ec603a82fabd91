"""A batch on its way through a step: inputs, targets with their labels counted, and rows by task.

Begin with `Batch`. Which labels are missing is decided in ``_label_masks.py`` (`is_missing`), counted once in
``_targets.py``, and masked in `polytask.losses`. What a class label is, is decided in ``_class_labels.py``.

This room imports only torch. It knows no losses, no models, no metrics and no Lightning.
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
from polytask.batch._class_labels import (
    are_labels,
    are_strings,
    check_classes,
    check_labels,
    check_no_gaps,
    unknown_class,
    whole_labels,
)
from polytask.batch._label_masks import HALF, IGNORE_INDEX, Labels, is_missing
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
    "are_labels",
    "are_strings",
    "check_accessor",
    "check_classes",
    "check_labels",
    "check_no_gaps",
    "count_rows",
    "describe",
    "find",
    "is_missing",
    "move",
    "take_rows",
    "unknown_class",
    "whole_labels",
]
