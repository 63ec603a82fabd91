"""Metrics by task: of a stage, over batches in one's own loop, and as plain functions on arrays.

What it is for: it names metrics, updates them with labelled elements only, and accumulates losses on the
device until they are read. It knows no models, criteria or trainers, and logs nothing.

Begin with `StageMetrics` in ``_stage_metrics.py``, which a `polytask.System` has for each stage; `LossMeter`
in ``_loss_meter.py`` does the same for losses. `MultiTaskMetrics` combines both for a loop without a System.
Metrics that are functions on arrays belong into ``_functions.py``.
"""

from polytask.metrics._functions import FunctionMetric, accuracy
from polytask.metrics._metric_names import metric_names
from polytask.metrics._multi_task_metrics import MultiTaskMetrics
from polytask.metrics._stage_metrics import StageMetrics

__all__ = ["FunctionMetric", "MultiTaskMetrics", "StageMetrics", "accuracy", "metric_names"]
