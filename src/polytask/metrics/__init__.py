"""Metrics by task: of a stage, over batches by hand, and as plain functions on arrays."""

from polytask.metrics._functions import FunctionMetric, accuracy
from polytask.metrics._multi_task_metrics import MultiTaskMetrics
from polytask.metrics._stage_metrics import StageMetrics, metric_names

__all__ = ["FunctionMetric", "MultiTaskMetrics", "StageMetrics", "accuracy", "metric_names"]
