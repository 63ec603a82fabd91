"""What connects a loader, a model, a criterion and metrics that were not made for each other.

What it is for: an adapter says where inputs, targets and task ids are in a batch, how a criterion or a metric
is called, and what is transformed on the way. It knows no trainer, stages, configs or files.

Begin with `BatchAdapter` in ``_batch_adapter.py``. `CriterionAdapter`, `MetricsAdapter` and `LoggingAdapter`
share the base classes of ``_base.py``: all three hold the transforms of ``_transforms.py``, and the first
two also hold the arguments of a call, ``_call_arguments.py``.
"""

from polytask.adapters._batch_adapter import BatchAdapter
from polytask.adapters._criterion_adapter import CriterionAdapter
from polytask.adapters._logging_adapter import LoggingAdapter
from polytask.adapters._metrics_adapter import MetricsAdapter

__all__ = ["BatchAdapter", "CriterionAdapter", "LoggingAdapter", "MetricsAdapter"]
