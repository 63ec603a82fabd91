"""Labels of a table as numbers that a loss takes, and outputs as labels again."""

import datetime
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from polytask._errors import UserError, hint
from polytask._tasks import TaskType, check_known
from polytask.batch import IGNORE_INDEX, are_labels, are_strings, unknown_class, whole_labels
from polytask.data._missing_values import array_with_missing, missing_of, numbers_of

KINDS = ("classification", "regression")
# Integers with at most this number of different values are classes; with more, they may be counts.
MOST_CLASSES = 20

_TYPES = "targets must be numbers, strings or booleans"

Array = NDArray[Any]


def _values(name: str, column: Any) -> tuple[Array, Array]:
    """A column's known values, and a mask of the rows that have one."""
    array = array_with_missing(column)
    missing: Array = np.zeros(len(array), dtype=bool)
    if array.ndim == 2 and array.shape[1] == 1:
        array = array[:, 0]
    if array.dtype == object:
        rows = numbers_of(array) if array.ndim > 1 else None
        if rows is None:
            return _known_objects(name, array)
        array = rows
    if array.dtype.kind == "f":
        empty = np.isnan(array)
        missing = np.all(empty.reshape(len(array), -1), axis=1)
    elif array.dtype.kind == "i" and array.ndim == 1:
        missing = np.asarray(array == IGNORE_INDEX)
    return array[~missing], ~missing


def _known_objects(name: str, objects: Array) -> tuple[Array, Array]:
    """The known values of a column of objects as an array of their own type, and their mask."""
    present = ~missing_of(objects) if objects.ndim == 1 else np.ones(len(objects), dtype=bool)
    known = objects[present]
    _check_one_kind(name, known)
    values = np.array(known.tolist())
    if values.dtype.kind == "i" and values.ndim == 1:
        labelled = values != IGNORE_INDEX
        present[present] = labelled
        values = values[labelled]
    return values, present


def _check_one_kind(name: str, known: Array) -> None:
    strings = sum(isinstance(value, str) for value in known)
    if 0 < strings < len(known):
        found = f"{strings} strings among {len(known)} labels"
        raise UserError(f"task '{name}'", "labels must be of one type", found)
    for value in known:
        if isinstance(value, (datetime.date, list, dict, tuple)):
            raise UserError(f"task '{name}'", _TYPES, type(value).__name__)


class LabelCodes:
    """How one task's targets become numbers, learned from the training targets.

    Classes are numbered in their sorted order. Values of a regression are standardised to mean 0 and variance
    1, so that losses of tasks in different units have comparable sizes.

    Args:
        name: The task.
        column: Its targets: ``(rows,)`` or, for a regression, ``(rows, k)``.
        kind: ``classification`` or ``regression``; inferred from the targets if None: strings and booleans
            are classes, and so are integers with up to 20 different values; fractions are values.

    Attributes:
        kind: The kind.
        classes: The classes in order; None for a regression.
        size: The number of outputs that a head needs.

    Raises:
        UserError: If there is no label, the kind cannot be inferred, or labels do not fit it.

    Example:
        >>> codes = LabelCodes("kind", ["b", "a", None])
        >>> codes.kind, codes.encode(["a", None]), codes.decode(np.array([[0.1, 0.9]]))
        ('classification', array([   0, -100]), array(['b'], dtype='<U1'))
    """

    def __init__(self, name: str, column: Any, kind: TaskType | None = None) -> None:
        known, _ = _values(name, column)
        if len(known) == 0:
            raise UserError(f"task '{name}'", "must have a label", "none in its targets", "Remove the task")
        if not are_labels(known.dtype.kind) and known.dtype.kind != "f":
            raise UserError(f"task '{name}'", _TYPES, str(known.dtype))
        if known.dtype.kind == "f" and np.isinf(known).any():
            raise UserError(f"task '{name}'", "targets must be finite", "infinity")
        self.name = name
        self.kind: TaskType = _kind(name, known) if kind is None else kind
        self.classes: Array | None = None
        if self.kind == "classification":
            self._learn_classes(known)
        else:
            self._learn_scale(known)

    def _learn_classes(self, known: Array) -> None:
        if known.ndim > 1:
            found = f"targets of shape {known.shape}"
            raise UserError(f"task '{self.name}'", "classification must have one class per row", found)
        self.classes = np.unique(_whole(self.name, known))
        if len(self.classes) < 2:
            raise UserError(
                f"task '{self.name}'",
                "must have at least two classes",
                f"1 class, {self.classes.tolist()[0]!r}",
            )
        self.size = len(self.classes)

    def _learn_scale(self, known: Array) -> None:
        if are_strings(known.dtype.kind):
            found = f"strings such as {known.tolist()[0]!r}"
            raise UserError(f"task '{self.name}'", "targets of a regression must be numbers", found)
        if known.ndim > 2:
            rule = "regression must have a number or a vector per row"
            raise UserError(f"task '{self.name}'", rule, f"targets of shape {known.shape}")
        values = known.astype(np.float64)
        self.mean, deviation = np.nanmean(values, axis=0), np.nanstd(values, axis=0)
        self.deviation = np.where(deviation > 0, deviation, 1.0)
        self.size = 1 if values.ndim == 1 else values.shape[1]

    def encode(self, column: Any) -> Array:
        """The targets as the loss takes them: classes from 0 with -100, or standardised values with NaN.

        Args:
            column: Targets.

        Raises:
            UserError: If a class is not among the learned ones.
        """
        known, present = _values(self.name, column)
        if self.classes is None:
            coded = np.full((len(present), *known.shape[1:]), np.nan, dtype=np.float32)
            coded[present] = (known - self.mean) / self.deviation
            return coded
        codes = np.full(len(present), IGNORE_INDEX, dtype=np.int64)
        labels = _whole(self.name, known)
        indices = np.searchsorted(self.classes, labels).clip(max=len(self.classes) - 1)
        unknown = labels[self.classes[indices] != labels]
        if len(unknown):
            raise unknown_class(unknown.tolist()[0], self.classes, f"task '{self.name}'")
        codes[present] = indices
        return codes

    def decode(self, outputs: Array) -> Array:
        """The labels for a head's outputs, ``(rows,)``, or ``(rows, k)`` for a regression of vectors.

        Args:
            outputs: The head's outputs, ``(rows, size)``.
        """
        if self.classes is not None:
            labels: Array = self.classes[outputs.argmax(axis=1)]
            return labels
        values = outputs[:, 0] if np.ndim(self.mean) == 0 else outputs
        scaled: Array = values.astype(np.float64) * self.deviation + self.mean
        return scaled

    def score(self, column: Any, predicted: Array) -> float:
        """Accuracy of a classification, coefficient of determination of a regression; over the labelled rows.

        Args:
            column: Targets.
            predicted: What `decode` returned.
        """
        known, present = _values(self.name, column)
        if len(known) == 0:
            raise UserError(f"task '{self.name}'", "must have a label to be scored", "none in its targets")
        if self.classes is not None:
            return float((known == predicted[present]).mean())
        residual = np.nansum((known - predicted[present]) ** 2, axis=0)
        spread = np.nansum((known - np.nanmean(known, axis=0)) ** 2, axis=0)
        ratio = residual / np.where(spread > 0, spread, 1.0)
        # The coefficient is undefined for a constant: 1 if the predictions are exact, else 0.
        return float(np.mean(np.where(spread > 0, 1 - ratio, residual == 0)))


def _kind(name: str, known: Array) -> TaskType:
    numbers = not are_strings(known.dtype.kind)
    whole = are_labels(known.dtype.kind) or np.array_equal(known, np.trunc(known))
    if known.ndim == 2 and numbers and whole and np.isin(known, (0, 1)).all():
        raise UserError(
            f"task '{name}'",
            "must have one label per row; several labels are several tasks",
            f"a matrix of 0 and 1 of shape {known.shape}",
            f"Pass a column for each label, or task_types={{'{name}': 'regression'}}",
        )
    if are_strings(known.dtype.kind) or known.dtype.kind == "b":
        return "classification"
    if known.ndim > 1 or not whole:
        return "regression"
    number = len(np.unique(known))
    if number <= MOST_CLASSES:
        return "classification"
    if known.dtype.kind == "f":
        return "regression"
    raise UserError(
        f"task '{name}'",
        f"task_types is required for integers with more than {MOST_CLASSES} different values",
        f"{number} values",
        f"Pass task_types={{'{name}': 'classification'}} or 'regression'",
    )


def _whole(name: str, known: Array) -> Array:
    """Classes as integers; a missing label has made them floating point."""
    if known.dtype.kind != "f":
        return known
    whole: Array = whole_labels(torch.from_numpy(known.astype(np.float64)), f"task '{name}'").numpy()
    return whole


def check_kinds(given: Any, tasks: Any) -> dict[str, TaskType]:
    """Kinds by task, checked; empty if none are given.

    Args:
        given: ``task_types`` as the user passed it.
        tasks: All tasks.

    Raises:
        UserError: If a task or a kind is unknown.

    Example:
        >>> check_kinds({"age": "regression"}, ["age", "sex"])
        {'age': 'regression'}
    """
    if given is None:
        return {}
    if not isinstance(given, Mapping):
        raise UserError("task_types", "must be a dict by task", repr(given))
    check_known(given, tasks, "task_types")
    for name, kind in given.items():
        if kind not in KINDS:
            raise UserError(
                f"task_types.{name}", f"must be one of {', '.join(KINDS)}", repr(kind), hint(str(kind), KINDS)
            )
    return dict(given)
