"""What a class label is, for arrays, tables, the estimator and the losses alike.

Integers, booleans and strings are class labels, and floating point numbers are values. If a task is known
to be a classification, whole floating point numbers are labels too, since a missing label, which is NaN,
makes an array floating point. Numbers as labels are the indices of the classes: 0 to their number minus 1.
"""

from collections.abc import Iterable, Sequence

from torch import Tensor

from polytask._checks import is_integer
from polytask._errors import UserError, hint
from polytask.batch._label_masks import IGNORE_INDEX, is_missing

# The kinds of numpy's dtypes whose values are labels, and those whose values are strings.
_LABELS = frozenset("biuUS")
_STRINGS = frozenset("US")


def are_labels(kind: str) -> bool:
    """Whether values of this kind are class labels unless a task type says otherwise.

    Args:
        kind: The kind of a numpy dtype.

    Example:
        >>> are_labels("i"), are_labels("U"), are_labels("f")
        (True, True, False)
    """
    return kind in _LABELS


def are_strings(kind: str) -> bool:
    """Whether values of this kind are strings.

    Args:
        kind: The kind of a numpy dtype.

    Example:
        >>> are_strings("U"), are_strings("i")
        (True, False)
    """
    return kind in _STRINGS


def whole_labels(
    values: Tensor, where: str, ignore_index: int = IGNORE_INDEX, fix: str | None = None
) -> Tensor:
    """Labels that are stored as floating point numbers, as int64.

    Args:
        values: The labels, NaN if missing.
        where: The task, for the message.
        ignore_index: The integer that means "no label".
        fix: What to do otherwise, for the message.

    Raises:
        UserError: If a value is no whole number.

    Example:
        >>> import torch
        >>> whole_labels(torch.tensor([1.0, float("nan")]), "task 'kind'")
        tensor([   1, -100])
    """
    missing = values.isnan()
    labels = values.masked_fill(missing, ignore_index).long()
    others = values[~missing & (labels != values)]
    if len(others):
        raise UserError(where, "class labels must be whole numbers", f"{others[0].item():g}", fix)
    return labels


def check_labels(
    labels: Tensor,
    where: str,
    count: int | None = None,
    *,
    ignore_index: int = IGNORE_INDEX,
    noun: str = "classes",
    fix: str | None = None,
) -> None:
    """Raise if a label is not the index of a class; reads values.

    Args:
        labels: Integers.
        where: The task, for the message.
        count: The number of classes; None if it is not known.
        ignore_index: The integer that means "no label".
        noun: What there are ``count`` of.
        fix: What to do, for the message.

    Raises:
        UserError: With the first label that is none.

    Example:
        >>> import torch
        >>> check_labels(torch.tensor([0, 3]), "task 'kind'", 3)
        Traceback (most recent call last):
        polytask._errors.UserError: task 'kind': class labels must be from 0 to 2 for 3 classes, got class 3.
    """
    present = labels[~is_missing(labels, ignore_index)].long()
    wrong = present[(present < 0) if count is None else ((present < 0) | (present >= count))]
    if not len(wrong):
        return
    rule = f"class labels must be 0 or more, or {ignore_index} for a missing label"
    if count is not None:
        rule = f"class labels must be from 0 to {count - 1} for {count} {noun}"
    raise UserError(where, rule, f"class {int(wrong[0])}", fix)


def check_no_gaps(present: Iterable[int], where: str, fix: str) -> None:
    """Raise if the labels are not 0, 1, … up to the last one.

    Args:
        present: The different labels, in order.
        where: The task, for the message.
        fix: What to do, for the message.

    Raises:
        UserError: With the first label that does not occur.

    Example:
        >>> check_no_gaps([0, 1, 3], "task 'kind'", "Renumber them")
        Traceback (most recent call last):
        polytask._errors.UserError: task 'kind': class labels must be 0 to 3 without gaps, got none ...
    """
    labels = list(present)
    for index, label in enumerate(labels):
        if index != label:
            rule = f"class labels must be 0 to {labels[-1]} without gaps"
            raise UserError(where, rule, f"none of class {index}", fix)


def check_classes(given: object, where: str, fix: str | None = None) -> None:
    """Raise if a task's classes are neither their number nor their names.

    Args:
        given: What the user gave.
        where: The argument, for the message.
        fix: What to do, for the message.

    Raises:
        UserError: If it is no integer above 0, and no list of unique names.

    Example:
        >>> check_classes(["low", "high"], "classes.income")
    """
    names = list(given) if isinstance(given, Sequence) and not isinstance(given, str) else []
    if not is_integer(given, 1) and (not names or len(set(map(str, names))) < len(names)):
        raise UserError(
            where, "must be the number of classes, or their unique names in order", repr(given), fix
        )


def unknown_class(label: object, classes: Iterable[object], where: str) -> UserError:
    """The error for a label that is no class.

    Args:
        label: The label.
        classes: All classes.
        where: The task, for the message.

    Example:
        >>> unknown_class("hihg", ["low", "high"], "task 'income'")
        UserError("task 'income'", "no class is called 'hihg'", None, "Did you mean 'high'?")
    """
    return UserError(
        where, f"no class is called {label!r}", None, hint(str(label), map(str, classes), "Classes")
    )
