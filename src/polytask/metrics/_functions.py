"""Metrics that are functions on arrays."""

import functools
import inspect
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor, nn
from torchmetrics import Metric
from torchmetrics.utilities import dim_zero_cat

from polytask._errors import UserError

Function = Callable[[NDArray[Any], NDArray[Any]], float]


class FunctionMetric(Metric):
    """A function on the arrays of all rows as a torchmetrics metric; it keeps the rows on the host.

    Args:
        function: From predictions and targets, as arrays, to a number. Further arguments are those that
            `polytask.adapters.MetricsAdapter` names in ``batch_arguments``.
        name: The metric's name; if None that of the function, and ``function`` for a lambda.

    Shape:
        - predictions, targets: ``(rows, ...)``, joined over the updates.
        - returns: ``()``.

    Raises:
        TypeError: If the function does not return a number.

    Example:
        >>> metric = FunctionMetric(accuracy)
        >>> metric.update(torch.tensor([0, 1, 1]), torch.tensor([0, 1, 0]))
        >>> metric.compute()
        tensor(0.6667)
    """

    full_state_update = False
    predictions: list[Tensor]
    targets: list[Tensor]

    def __init__(self, function: Function, name: str | None = None) -> None:
        super().__init__(compute_on_cpu=True)
        self.function = function
        self.name = _name(function) if name is None else name
        self.add_state("predictions", default=[], dist_reduce_fx="cat")
        self.add_state("targets", default=[], dist_reduce_fx="cat")
        self.further = _further(function)
        for argument in self.further:
            self.add_state(f"further_{argument}", default=[], dist_reduce_fx="cat")

    def update(self, predictions: Tensor, targets: Tensor, **further: Tensor) -> None:
        """Keep rows.

        Args:
            predictions: Outputs of the task.
            targets: Their targets.
            further: Further arguments of the function, by name.
        """
        self.predictions.append(predictions.detach())
        self.targets.append(targets.detach())
        for argument, values in further.items():
            getattr(self, f"further_{argument}").append(values.detach())

    def compute(self) -> Tensor:
        """The function on all rows.

        Raises:
            TypeError: If the function returns no number.
        """
        kept = {argument: getattr(self, f"further_{argument}") for argument in self.further}
        # In several processes a state is a tensor once it is joined.
        further = {argument: _array(rows) for argument, rows in kept.items() if len(rows)}
        value = self.function(_array(self.predictions), _array(self.targets), **further)
        if np.ndim(value) != 0 or not np.issubdtype(np.asarray(value).dtype, np.number):
            raise TypeError(f"{self.name} must return a number, got {value!r}")
        return torch.tensor(float(value))


def as_metric(given: Any) -> Any:
    """A plain function as a metric; anything else unchanged."""
    plain = callable(given) and not isinstance(given, (type, nn.Module))
    return FunctionMetric(given) if plain else given


def takes(metric: Metric, argument: str) -> bool:
    """Whether a metric can be called with a further argument.

    Args:
        metric: The metric.
        argument: The argument's name.

    Example:
        >>> takes(FunctionMetric(lambda predictions, targets, weight: 0.0), "weight")
        True
        >>> takes(FunctionMetric(accuracy), "weight")
        False
    """
    if isinstance(metric, FunctionMetric):
        return argument in metric.further
    parts = [part for part in metric.modules() if isinstance(part, Metric)]
    # Wrappers pass on everything.
    inner = [part for part in parts if sum(isinstance(one, Metric) for one in part.modules()) == 1]
    return all(_has(inspect.signature(part.update), argument) for part in inner)


def check_call(metric: Metric, positional: Sequence[Any], named: Mapping[str, Any]) -> None:
    """Check that a metric can be called with these arguments; their values do not matter.

    Args:
        metric: The metric.
        positional: Positional arguments.
        named: Arguments by name.

    Raises:
        TypeError: If it cannot.

    Example:
        >>> check_call(FunctionMetric(accuracy), [None, None], {})
    """
    call: Any = metric.function if isinstance(metric, FunctionMetric) else metric.update
    try:
        signature = inspect.signature(call)
    except ValueError:
        return
    signature.bind(*positional, **named)


def _has(signature: inspect.Signature, argument: str) -> bool:
    kinds = {parameter.kind for parameter in signature.parameters.values()}
    return argument in signature.parameters or inspect.Parameter.VAR_KEYWORD in kinds


def _further(function: Any) -> tuple[str, ...]:
    """The names of a function's arguments after the first two."""
    try:
        parameters = list(inspect.signature(function).parameters.values())
    except ValueError:
        # Some functions that are not written in Python have no signature.
        return ()
    variable = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)
    return tuple(parameter.name for parameter in parameters[2:] if parameter.kind not in variable)


def _name(function: Any) -> str:
    while isinstance(function, functools.partial):
        function = function.func
    name = str(getattr(function, "__name__", type(function).__name__))
    return name if name.isidentifier() else "function"


def _array(rows: list[Tensor]) -> NDArray[Any]:
    joined = dim_zero_cat(rows).cpu()
    array: NDArray[Any] = (joined.float() if joined.dtype == torch.bfloat16 else joined).numpy()
    return array


def accuracy(predictions: ArrayLike, targets: ArrayLike) -> float:
    """The share of rows, or elements, whose class is correct.

    Args:
        predictions: Classes, or scores (of any scale) whose greatest along axis 1 is the class.
        targets: Classes.

    Shape:
        - predictions: ``(rows, ...)`` or, as scores, ``(rows, classes, ...)``; ``(rows, 1)`` is ``(rows,)``.
        - targets: ``(rows, ...)``; ``(rows, 1)`` is ``(rows,)``.

    Raises:
        UserError: If the shapes do not fit, there is no row, or predictions of the targets' shape are
            not classes.

    Example:
        >>> accuracy([[0.1, 0.9], [0.8, 0.2]], [1, 1])
        0.5
        >>> accuracy([1, 0], [[1], [0]])
        1.0
    """
    classes, labels = _column(np.asarray(predictions)), _column(np.asarray(targets))
    if classes.ndim == labels.ndim + 1 and classes.shape[:1] + classes.shape[2:] == labels.shape:
        classes = classes.argmax(axis=1) if classes.shape[1] > 1 else classes[:, 0]
    if classes.shape != labels.shape or classes.ndim == 0 or classes.size == 0:
        found = f"predictions {np.shape(predictions)} and targets {np.shape(targets)}"
        raise UserError("accuracy", "must have a class, or scores by class, for every target", found)
    if np.issubdtype(classes.dtype, np.floating) and not np.array_equal(classes, np.trunc(classes)):
        raise UserError(
            "accuracy",
            "predictions of the targets' shape must be classes",
            f"the number {classes[classes != np.trunc(classes)].flat[0]:.4g}",
            "Pass scores by class, or compare them with a threshold first",
        )
    return float((classes == labels).mean())


def _column(values: NDArray[Any]) -> NDArray[Any]:
    return values[:, 0] if values.ndim == 2 and values.shape[1] == 1 else values
