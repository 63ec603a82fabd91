"""Which values of lists, data frames and object arrays are missing, and the arrays of the others."""

import numbers
from typing import Any

import numpy as np
from numpy.typing import NDArray

from polytask.batch import are_strings

Entries = NDArray[Any]


def is_missing_value(value: Any) -> bool:
    """Whether a single value is missing: None, NaN, and what pandas has for it, ``NA`` and ``NaT``.

    Example:
        >>> [is_missing_value(value) for value in (None, float("nan"), np.datetime64("NaT"), 0, "")]
        [True, True, True, False, False]
    """
    if value is None:
        return True
    if isinstance(value, (str, bytes, bool, np.bool_)):
        return False
    different = value != value
    # NA is neither equal to itself nor different: the comparison is NA again.
    return different is value or (isinstance(different, (bool, np.bool_)) and bool(different))


def array_with_missing(column: Any) -> Entries:
    """An array of the values that keeps them apart from missing ones: of objects, if numpy would not.

    numpy alone writes NaN among strings as ``"nan"``, and turns integers with a null of pandas or polars into
    floats.

    Args:
        column: A list, an array, or a column of a data frame.

    Example:
        >>> array_with_missing(["a", float("nan")]).tolist()
        ['a', nan]
    """
    null_count = getattr(column, "null_count", None)
    if callable(null_count) and hasattr(column, "to_list") and null_count():
        return _objects(column.to_list())
    array = np.asarray(column)
    if getattr(getattr(column, "dtype", None), "kind", "f") in "iub" and array.dtype.kind == "f":
        return _objects(list(column))
    if are_strings(array.dtype.kind) and not isinstance(column, np.ndarray):
        return np.array(column, dtype=object)
    return array


def missing_of(objects: Entries) -> NDArray[np.bool_]:
    """Which elements of an array of objects are missing.

    Shape:
        - returns: that of the array.

    Example:
        >>> missing_of(np.array([1, None], dtype=object))
        array([False,  True])
    """
    found = [is_missing_value(value) for value in objects.reshape(-1)]
    return np.array(found, dtype=bool).reshape(objects.shape)


def numbers_of(objects: Entries, label: int | None = None) -> Entries | None:
    """An array of objects as numbers; None if there is something else among them.

    Args:
        objects: Numbers and missing values.
        label: What a missing integer or boolean becomes; if None, they become floating point, with NaN.
            In rows of several booleans, which are several labels, a missing one is NaN.

    Example:
        >>> numbers_of(np.array([3, None], dtype=object))
        array([ 3., nan])
        >>> numbers_of(np.array([True, None], dtype=object), -100)
        array([   1, -100])
    """
    missing = missing_of(objects)
    known = objects[~missing].tolist()
    if not all(isinstance(value, (numbers.Real, np.bool_)) for value in known):
        return None
    values = np.array(known)
    whole = bool(known) and values.dtype.kind in "biu"
    several = values.dtype.kind == "b" and objects.ndim > 1 and objects.shape[1:] != (1,)
    if not missing.any():
        return values.reshape(objects.shape)
    if label is None or not whole or several:
        filled = np.full(objects.shape, np.nan)
    else:
        filled = np.full(objects.shape, label, dtype=np.int64)
    filled[~missing] = values
    return filled


def _objects(values: list[Any]) -> Entries:
    array = np.empty(len(values), dtype=object)
    array[:] = values
    return array
