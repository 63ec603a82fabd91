"""The private names of torchmetrics."""

from contextlib import AbstractContextManager
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


def without_sync(metric: Any) -> Any:
    """The metric, set to compute from the rows of this process only.

    Args:
        metric: A `torchmetrics.Metric`.

    Example:
        >>> from torchmetrics import MeanMetric
        >>> without_sync(MeanMetric())
        MeanMetric()
    """
    for part in metric.modules():
        part._to_sync = False
    return metric


def synchronized(metric: Any) -> AbstractContextManager[None]:
    """Let a metric's states be those of all processes for a while, if it would compute from them.

    Args:
        metric: A `torchmetrics.Metric`.

    Example:
        >>> from torchmetrics import MeanMetric
        >>> with synchronized(MeanMetric()):
        ...     pass
    """
    context: AbstractContextManager[None] = metric.sync_context(
        dist_sync_fn=metric.dist_sync_fn, should_sync=metric._to_sync, should_unsync=metric._should_unsync
    )
    return context
