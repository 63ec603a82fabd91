"""The private names of torchmetrics."""

from typing import Any


def set_update_count(metric: Any, count: int) -> None:
    """Set how many times a metric counts as updated: one with state must not warn that it has none.

    Args:
        metric: A `torchmetrics.Metric`.
        count: The number of updates.

    Example:
        >>> from torchmetrics import MeanMetric
        >>> metric = MeanMetric()
        >>> set_update_count(metric, 3)
        >>> metric.update_count
        3
    """
    metric._update_count = count
