"""The names of metrics."""

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from torchmetrics import Metric, MetricCollection

from polytask._errors import UserError
from polytask.metrics._functions import Function, FunctionMetric, as_metric

One = Metric | MetricCollection | Function
TaskMetrics = One | Sequence[One] | Mapping[str, One]


def metric_names(given: TaskMetrics, where: str) -> dict[str, Metric]:
    """Metrics by name: the key if a dict gives one, else the class without torchmetrics' task prefix.

    A plain function ``(predictions, targets) -> float`` on arrays is a `FunctionMetric` under its own name, a
    lambda one under ``function``. The metrics of a `torchmetrics.MetricCollection` have its keys, with its
    prefix and postfix; after the key of a dict and ``_`` if it is in one.

    Args:
        given: One metric, collection or function, a list of them, or a dict.
        where: The argument's key, for the message.

    Raises:
        UserError: If one is not a metric, or two have the same name.

    Example:
        >>> from torchmetrics.classification import MulticlassAccuracy
        >>> list(metric_names(MulticlassAccuracy(3), "metrics.digit"))
        ['Accuracy']
    """
    named: dict[str, Any] = {}
    for name, metric in _pairs(given):
        if name in named:
            raise UserError(where, "metric names must be unique", f"{name} twice", "Pass a dict by name")
        named[name] = metric
    for name, metric in named.items():
        if not isinstance(metric, Metric):
            raise UserError(f"{where}.{name}", "must be a torchmetrics.Metric", type(metric).__name__)
        if not re.fullmatch(r"\w+", name):
            rule = "a metric's name must have letters, digits and underscores only"
            raise UserError(where, rule, repr(name), "Pass a dict by name, {'name': ...}")
    return named


def _pairs(given: Any) -> Iterator[tuple[str, Any]]:
    if isinstance(given, MetricCollection):
        yield from given.items()
    elif isinstance(given, Mapping):
        for key, entry in given.items():
            if isinstance(entry, MetricCollection):
                yield from ((f"{key}_{name}", metric) for name, metric in entry.items())
            else:
                yield str(key), as_metric(entry)
    elif isinstance(given, (list, tuple)):
        for entry in given:
            yield from _pairs(entry) if isinstance(entry, MetricCollection) else [_pair(entry)]
    else:
        yield _pair(given)


def _pair(given: Any) -> tuple[str, Any]:
    metric = as_metric(given)
    return _name(metric), metric


def _name(metric: Any) -> str:
    if isinstance(metric, FunctionMetric):
        return metric.name
    name = type(metric).__name__
    if type(metric).__module__.startswith("torchmetrics."):
        return re.sub(r"^(Binary|Multiclass|Multilabel)(?=[A-Z])", "", name)
    return name
