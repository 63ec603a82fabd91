"""The numbers that a metric will log: one, one for each class or output, or unknown before a run."""

import re
from typing import Any

from torchmetrics import Metric
from torchmetrics.classification import (
    BinaryFairness,
    BinaryGroupStatRates,
    BinaryStatScores,
    MulticlassStatScores,
    MultilabelStatScores,
)

_KNOWN = tuple(f"torchmetrics.{room}." for room in ("classification", "regression", "segmentation"))
_NOT_ONE = (
    BinaryFairness,
    BinaryGroupStatRates,
    BinaryStatScores,
    MulticlassStatScores,
    MultilabelStatScores,
)
_SEVERAL: dict[str, tuple[Any, ...]] = {
    "average": (None, "none"),
    "per_class": (True,),
    "multioutput": ("raw_values",),
    "multidim_average": ("samplewise",),
    "reduction": (None, "none"),
}
_SIZES = ("num_outputs", "num_classes", "num_labels")


def may_log(metric: Metric, entry: str) -> bool:
    """Whether the metric may log this entry.

    For torchmetrics' classes for classification, regression and segmentation it follows from their
    settings. For any other metric, and for wrappers, every entry is possible.

    Args:
        metric: The metric.
        entry: What follows the metric's name in the key: nothing for the only number, ``_0`` for the
            first of several, ``_cat`` for an entry of a dict.

    Example:
        >>> from torchmetrics.classification import MulticlassAccuracy
        >>> [may_log(MulticlassAccuracy(3), entry) for entry in ("", "_0")]
        [True, False]
        >>> [may_log(MulticlassAccuracy(3, average=None), entry) for entry in ("", "_0", "_3")]
        [False, True, False]
    """
    return entry in entries(metric) or (_size(metric) is None and re.fullmatch(r"_\w+", entry) is not None)


def entries(metric: Metric) -> list[str]:
    """The entries that the metric is known to log; the only number if they cannot be known.

    Example:
        >>> from torchmetrics import MeanSquaredError
        >>> entries(MeanSquaredError()), entries(MeanSquaredError(num_outputs=2))
        ([''], ['_0', '_1'])
    """
    size = _size(metric)
    return [""] if size is None or size == 1 else [f"_{i}" for i in range(size)]


def _size(metric: Metric) -> int | None:
    """The number of values that the metric computes; None if its settings do not determine it."""
    # Wrappers show the settings of what they wrap.
    if not type(metric).__module__.startswith(_KNOWN) or type(metric) in _NOT_ONE:
        return None
    sizes = [size for name in _SIZES if isinstance(size := getattr(metric, name, None), int)]
    given = [name for name in _SEVERAL if hasattr(metric, name) and getattr(metric, name) in _SEVERAL[name]]
    if given in (["average"], ["per_class"]):
        return sizes[0] if sizes else None
    if given:
        return None
    outputs = getattr(metric, "num_outputs", 1)
    return outputs if isinstance(outputs, int) else None
