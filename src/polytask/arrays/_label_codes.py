"""Targets of a table as numbers that a loss takes, and outputs as labels again."""

import datetime
from collections.abc import Mapping
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray

from polytask._checks import is_number
from polytask._errors import UserError, hint
from polytask._tasks import check_known, check_task_names
from polytask.batch import IGNORE_INDEX, are_labels, are_strings, unknown_class, whole_labels

Kind = Literal["classification", "regression"]
KINDS = ("classification", "regression")
# Whole numbers of so few values are classes; of more, they may as well be counts.
MOST_CLASSES = 20

Array = NDArray[Any]


def columns_of(targets: Any, rows: int) -> dict[str, Any]:
    """Targets by task, from a dict, a data frame or a structured array.

    Args:
        targets: The targets.
        rows: How many rows each needs.

    Raises:
        UserError: Where the tasks have no names, or rows differ in number.

    Example:
        >>> columns_of({"kind": ["a", "b"]}, 2)
        {'kind': ['a', 'b']}
    """
    if isinstance(targets, Mapping):
        columns = dict(targets)
    elif hasattr(targets, "columns") and hasattr(targets, "__getitem__"):
        columns = {name: targets[name] for name in targets.columns}
    elif getattr(getattr(targets, "dtype", None), "names", None):
        columns = {name: targets[name] for name in targets.dtype.names}
    else:
        if targets is None:
            raise UserError("y", "requires y to be passed, but the target y is None")
        found = f"a {type(targets).__name__}"
        raise UserError("y", "is a dict by task or a data frame with a column for each", found)
    check_task_names(columns, "y")
    for name, column in columns.items():
        if len(column) != rows:
            found = f"{len(column)}, in targets of shape {np.shape(column)}"
            raise UserError(f"task '{name}'", f"needs a target for each of the {rows} rows of X", found)
    return columns


def _values(name: str, column: Any) -> tuple[Array, Array]:
    """A column's known values, and which rows have one."""
    if hasattr(column, "isna"):
        missing = np.asarray(column.isna(), dtype=bool)
    elif hasattr(column, "is_null"):
        missing = np.asarray(column.is_null(), dtype=bool)
    else:
        missing = np.zeros(len(column), dtype=bool)
    array = np.asarray(column)
    if are_strings(array.dtype.kind) and not isinstance(column, np.ndarray):
        # Numbers among texts have become texts.
        array = np.array(column, dtype=object)
    if array.ndim == 2 and array.shape[1] == 1:
        array = array[:, 0]
    if array.dtype == object:
        missing = missing | np.array([value is None or _is_nan(value) for value in array], dtype=bool)
        known = array[~missing]
        _check_one_kind(name, known)
        return np.array(known.tolist()), ~missing
    if array.dtype.kind == "f":
        empty = np.isnan(array)
        missing = missing | empty.reshape(len(array), -1).all(axis=1)
    elif array.dtype.kind == "i":
        missing = missing | (array == IGNORE_INDEX if array.ndim == 1 else False)
    return array[~missing], ~missing


def _is_nan(value: Any) -> bool:
    return is_number(value) and value != value


def _check_one_kind(name: str, known: Array) -> None:
    texts = sum(isinstance(value, str) for value in known)
    if 0 < texts < len(known):
        raise UserError(
            f"task '{name}'", "has labels of one kind", f"{texts} texts among {len(known)} labels"
        )
    for value in known:
        if isinstance(value, (datetime.date, list, dict, tuple)):
            rule = "targets are numbers, texts or booleans"
            raise UserError(f"task '{name}'", rule, type(value).__name__)


class LabelCodes:
    """How one task's targets become numbers, learned from the targets to train on.

    Classes are numbered in their sorted order. Values are shifted and scaled to mean 0 and variance 1, so
    that losses of tasks in different units are of one size.

    Args:
        name: The task.
        column: Its targets: ``(rows,)`` or, for values, ``(rows, k)``.
        kind: ``classification`` or ``regression``; told from the targets where None: texts and booleans are
            classes, and so are whole numbers of up to 20 different values; fractions are values.

    Attributes:
        kind: Which it is.
        classes: The classes in order; None for values.
        size: Outputs that a head needs.

    Raises:
        UserError: Where there is no label, the kind cannot be told, or labels do not fit it.

    Example:
        >>> codes = LabelCodes("kind", ["b", "a", None])
        >>> codes.kind, codes.encode(["a", None]), codes.decode(np.array([[0.1, 0.9]]))
        ('classification', array([   0, -100]), array(['b'], dtype='<U1'))
    """

    def __init__(self, name: str, column: Any, kind: Kind | None = None) -> None:
        known, _ = _values(name, column)
        if len(known) == 0:
            raise UserError(f"task '{name}'", "needs a label", "none in its targets", "Leave the task out")
        if not are_labels(known.dtype.kind) and known.dtype.kind != "f":
            raise UserError(f"task '{name}'", "targets are numbers, texts or booleans", str(known.dtype))
        if known.dtype.kind == "f" and np.isinf(known).any():
            raise UserError(f"task '{name}'", "targets are finite", "infinity")
        self.name = name
        self.kind: Kind = _kind(name, known) if kind is None else kind
        self.classes: Array | None = None
        if self.kind == "classification":
            self._learn_classes(known)
        else:
            self._learn_scale(known)

    def _learn_classes(self, known: Array) -> None:
        if known.ndim > 1:
            found = f"targets of shape {known.shape}"
            raise UserError(f"task '{self.name}'", "classification has one class for each row", found)
        self.classes = np.unique(_whole(self.name, known))
        if len(self.classes) < 2:
            raise UserError(
                f"task '{self.name}'", "needs two classes", f"1 class, {self.classes.tolist()[0]!r}"
            )
        self.size = len(self.classes)

    def _learn_scale(self, known: Array) -> None:
        if are_strings(known.dtype.kind):
            found = f"texts such as {known.flat[0]!r}"
            raise UserError(f"task '{self.name}'", "regression needs numbers", found)
        if known.ndim > 2:
            rule = "regression has a number or a vector for each row"
            raise UserError(f"task '{self.name}'", rule, f"targets of shape {known.shape}")
        values = known.astype(np.float64)
        self.mean, deviation = np.nanmean(values, axis=0), np.nanstd(values, axis=0)
        self.deviation = np.where(deviation > 0, deviation, 1.0)
        self.size = 1 if values.ndim == 1 else values.shape[1]

    def encode(self, column: Any) -> Array:
        """The targets as the loss takes them: classes from 0 with -100, or scaled values with NaN.

        Args:
            column: Targets.

        Raises:
            UserError: Where a class was not there when they were learned.
        """
        known, present = _values(self.name, column)
        if self.classes is None:
            coded = np.full((len(present), *known.shape[1:]), np.nan, dtype=np.float32)
            coded[present] = (known - self.mean) / self.deviation
            return coded
        codes = np.full(len(present), IGNORE_INDEX, dtype=np.int64)
        labels = _whole(self.name, known)
        places = np.searchsorted(self.classes, labels).clip(max=len(self.classes) - 1)
        unknown = labels[self.classes[places] != labels]
        if len(unknown):
            raise unknown_class(unknown.tolist()[0], self.classes, f"task '{self.name}'")
        codes[present] = places
        return codes

    def decode(self, outputs: Array) -> Array:
        """The labels that outputs mean, ``(rows,)``, or ``(rows, k)`` for values of several numbers.

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
        """Accuracy for classes, the coefficient of determination for values; over the labelled rows.

        Args:
            column: Targets.
            predicted: What `decode` gave.
        """
        known, present = _values(self.name, column)
        if len(known) == 0:
            raise UserError(f"task '{self.name}'", "needs a label to be scored", "none in its targets")
        if self.classes is not None:
            return float((known == predicted[present]).mean())
        residual = np.nansum((known - predicted[present]) ** 2, axis=0)
        spread = np.nansum((known - np.nanmean(known, axis=0)) ** 2, axis=0)
        ratio = residual / np.where(spread > 0, spread, 1.0)
        # Of a constant there is nothing to determine: all right, or not at all.
        return float(np.mean(np.where(spread > 0, 1 - ratio, residual == 0)))


def _kind(name: str, known: Array) -> Kind:
    if are_strings(known.dtype.kind) or known.dtype.kind == "b":
        return "classification"
    whole = are_labels(known.dtype.kind) or np.array_equal(known, np.trunc(known))
    if known.ndim > 1 or not whole:
        return "regression"
    number = len(np.unique(known))
    if number <= MOST_CLASSES:
        return "classification"
    if known.dtype.kind == "f":
        return "regression"
    raise UserError(
        f"task '{name}'",
        f"integers of more than {MOST_CLASSES} different values may be classes or values",
        f"{number} of them",
        f"Name it: task_types={{'{name}': 'classification'}} or 'regression'",
    )


def _whole(name: str, known: Array) -> Array:
    """Classes that a missing one made floating point are whole numbers again."""
    if known.dtype.kind != "f":
        return known
    whole: Array = whole_labels(torch.from_numpy(known.astype(np.float64)), f"task '{name}'").numpy()
    return whole


def check_kinds(given: Any, tasks: Any) -> dict[str, Kind]:
    """Kinds by task, as far as they are named.

    Args:
        given: What the user named.
        tasks: All tasks.

    Raises:
        UserError: Where a task or a kind is not known.

    Example:
        >>> check_kinds({"age": "regression"}, ["age", "sex"])
        {'age': 'regression'}
    """
    if given is None:
        return {}
    if not isinstance(given, Mapping):
        raise UserError("task_types", "is a dict by task", repr(given))
    check_known(given, tasks, "task_types")
    for name, kind in given.items():
        if kind not in KINDS:
            raise UserError(
                f"task_types.{name}", f"is one of {', '.join(KINDS)}", repr(kind), hint(str(kind), KINDS)
            )
    return dict(given)
