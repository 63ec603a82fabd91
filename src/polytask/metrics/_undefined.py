"""Values that the labels leave undefined: NaN, where torchmetrics computes 0 or another number."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor
from torchmetrics import Metric, classification
from torchmetrics.classification import (
    BinaryAUROC,
    BinaryAveragePrecision,
    BinaryLogAUC,
    BinaryMatthewsCorrCoef,
    MulticlassAUROC,
    MulticlassAveragePrecision,
    MulticlassLogAUC,
    MulticlassMatthewsCorrCoef,
    MulticlassPrecisionRecallCurve,
    MultilabelAUROC,
    MultilabelAveragePrecision,
    MultilabelLogAUC,
    MultilabelMatthewsCorrCoef,
    MultilabelPrecisionRecallCurve,
)
from torchmetrics.regression import ExplainedVariance, R2Score, RelativeSquaredError, SpearmanCorrCoef
from torchmetrics.utilities import dim_zero_cat

from polytask._lightning._metrics import synchronized
from polytask._lightning._noise import Silence, silenced
from polytask.metrics._partial_rows import innermost


def _rates(name: str) -> tuple[Any, ...]:
    """A class of torchmetrics that its lowest version lacks; none there."""
    return (getattr(classification, name),) if hasattr(classification, name) else ()


_ONE_CLASS = "all labels are of one class"
_NO_POSITIVE = "no label is positive"
_CONSTANT = "the labels do not vary"


@dataclass(frozen=True)
class Undefined:
    """A value, or the means of several, that the labels leave undefined.

    Attributes:
        reason: Why.
        defined: The number of values that are defined.
        count: The number of values: classes, labels or outputs.

    Example:
        >>> print(Undefined("all labels are of one class", 2, 3))
        the mean over 2 of 3 values: for the others all labels are of one class
        >>> print(Undefined("all labels are of one class", 0, 1))
        NaN: all labels are of one class
    """

    reason: str
    defined: int
    count: int

    def __str__(self) -> str:
        if not self.defined:
            return f"NaN: {self.reason}"
        return f"the mean over {self.defined} of {self.count} values: for the others {self.reason}"


@contextmanager
def undefined_as_nan(metric: Metric) -> Iterator[list[Undefined]]:
    """Let a metric, or those that it wraps, compute NaN for what the labels leave undefined.

    A mean over classes, labels or outputs is that of the defined ones.

    Args:
        metric: The metric.

    Yields:
        What was undefined in the values that were computed meanwhile.

    Example:
        >>> metric = BinaryAUROC()
        >>> metric.update(torch.tensor([0.2, 0.7]), torch.tensor([0, 0]))
        >>> with undefined_as_nan(metric) as found:
        ...     metric.compute()
        tensor(nan)
        >>> found
        [Undefined(reason='all labels are of one class', defined=0, count=1)]
    """
    found: list[Undefined] = []
    with ExitStack() as stack:
        for part in innermost(metric):
            rule = next((rule for classes, rule in _RULES if isinstance(part, classes)), None)
            if rule is not None:
                stack.callback(setattr, part, "compute", part.compute)
                part.compute = partial(_compute, part, rule, found)  # type: ignore[method-assign]
        yield found


@dataclass(frozen=True)
class _Rule:
    """When a metric's values are defined, one for each class, label or output."""

    reason: str
    defined: Callable[[Any], Tensor]


def _compute(metric: Any, rule: _Rule, found: list[Undefined]) -> Tensor:
    with synchronized(metric):
        defined = rule.defined(metric)
        count = int(defined.count_nonzero())
        if count == defined.numel():
            return _value(metric)
        nothing = torch.full_like(defined, torch.nan, dtype=torch.float32)
        # torchmetrics' warnings name neither a task nor a stage.
        with silenced(Silence.FEW_ROWS):
            # Some metrics fail if nothing is defined.
            values = _by_output(metric) if count else nothing
        if values is None:
            values, count = nothing, 0
        elif count and _averages(metric):
            found.append(Undefined(rule.reason, count, defined.numel()))
            return _mean(metric, values, defined)
        found.append(Undefined(rule.reason, 0, 1))
        return values.mean() if _averages(metric) else torch.where(defined, values, torch.nan)


def _value(metric: Any) -> Tensor:
    value = type(metric).compute(metric)
    assert isinstance(value, Tensor)
    return value.squeeze() if value.numel() == 1 else value


# How the settings that average over classes, labels or outputs are called, and their value for no average.
_SETTINGS = {"average": "none", "multioutput": "raw_values"}


def _averages(metric: Any) -> bool:
    """Whether the metric computes one value of several classes, labels or outputs."""
    if isinstance(metric, SpearmanCorrCoef):
        return metric.num_outputs == 1
    given = [(getattr(metric, name), none) for name, none in _SETTINGS.items() if hasattr(metric, name)]
    return all(value not in (None, none) for value, none in given)


def _by_output(metric: Any) -> Tensor | None:
    """The values of the classes, labels or outputs; None if the metric cannot compute them."""
    if not _averages(metric):
        return _value(metric)
    # The curves of several classes, or an adjustment, are no mean over values.
    if isinstance(metric, _rates("MulticlassEER")) or (isinstance(metric, R2Score) and metric.adjusted):
        return None
    for name, none in _SETTINGS.items():
        given = getattr(metric, name, None)
        if given is not None:
            setattr(metric, name, none)
            try:
                return _value(metric)
            finally:
                setattr(metric, name, given)
    return None


def _mean(metric: Any, values: Tensor, defined: Tensor) -> Tensor:
    weights = torch.ones_like(values)
    if getattr(metric, "average", None) == "weighted":
        weights = _support(metric)[0].to(values)
    elif getattr(metric, "multioutput", None) == "variance_weighted":
        weights = _variation(metric).to(values)
    weights = torch.where(defined, weights, 0)
    return (torch.where(defined, values, 0) * weights).sum() / weights.sum()


def _support(metric: Any) -> tuple[Tensor, Tensor]:
    """The numbers of positive and negative labels, by class or label."""
    average = getattr(metric, "average", None)
    if metric.thresholds is not None:
        confusion = metric.confmat[0]
        positive, negative = confusion[..., 1, :].sum(-1), confusion[..., 0, :].sum(-1)
    else:
        target = dim_zero_cat(metric.target)
        if isinstance(metric, MulticlassPrecisionRecallCurve) and average != "micro":
            positive = torch.bincount(target, minlength=metric.num_classes)
            negative = positive.sum() - positive
        else:
            positive, negative = (target == 1).sum(0), (target == 0).sum(0)
    if isinstance(metric, MultilabelPrecisionRecallCurve) and average == "micro":
        return positive.sum(), negative.sum()
    return positive, negative


def _variation(metric: Any) -> Tensor:
    """The sum of squared deviations of the labels from their mean, by output; 0 if it is all rounding."""
    if isinstance(metric, ExplainedVariance):
        squares, total, count = metric.sum_squared_target, metric.sum_target, metric.num_obs
    else:
        squares, total, count = metric.sum_squared_error, metric.sum_error, metric.total
    varied = squares - total * total / count
    least = 1e-6 * squares
    if isinstance(metric, R2Score):
        # What is smaller counts as constant in torchmetrics.
        least = least.clamp(min=1e-4)
    return torch.where(varied > least, varied, 0)


def _two_classes(metric: Any) -> Tensor:
    positive, negative = _support(metric)
    return (positive > 0) & (negative > 0)


def _positive(metric: Any) -> Tensor:
    return _support(metric)[0] > 0


def _varied(metric: Any) -> Tensor:
    return _variation(metric) > 0


def _ranks(metric: Any) -> Tensor:
    target: Tensor = dim_zero_cat(metric.target)
    return (target != target[:1]).any(dim=0)


def _several_classes(metric: Any) -> Tensor:
    confusion: Tensor = metric.confmat
    by_class = (confusion if confusion.ndim == 2 else confusion.sum(0)).sum(-1)
    return by_class.count_nonzero() > 1


_RULES: tuple[tuple[tuple[type[Metric], ...], _Rule], ...] = (
    (
        (
            *(BinaryAUROC, *_rates("BinaryEER"), BinaryLogAUC),
            *(MulticlassAUROC, *_rates("MulticlassEER"), MulticlassLogAUC),
            *(MultilabelAUROC, *_rates("MultilabelEER"), MultilabelLogAUC),
        ),
        _Rule(_ONE_CLASS, _two_classes),
    ),
    (
        (BinaryAveragePrecision, MulticlassAveragePrecision, MultilabelAveragePrecision),
        _Rule(_NO_POSITIVE, _positive),
    ),
    (
        (BinaryMatthewsCorrCoef, MulticlassMatthewsCorrCoef, MultilabelMatthewsCorrCoef),
        _Rule(_ONE_CLASS, _several_classes),
    ),
    ((R2Score, ExplainedVariance, RelativeSquaredError), _Rule(_CONSTANT, _varied)),
    ((SpearmanCorrCoef,), _Rule(_CONSTANT, _ranks)),
)
