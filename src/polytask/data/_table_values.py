"""The values of a table's columns, as strings or as numbers, with empty cells missing."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from polytask._errors import UserError

Numbers = NDArray[np.float64]


def cleaned(table: pa.Table, missing: Sequence[str]) -> pa.Table:
    """The table with its strings trimmed, and null for those that stand for a missing value.

    Example:
        >>> cleaned(pa.table({"a": [" 1", "?", ""]}), ["", "?"])["a"].to_pylist()
        ['1', None, None]
    """
    absent = pa.array(list(missing), pa.string())
    for index, field in enumerate(table.schema):
        if is_text(field.type):
            trimmed = pc.utf8_trim_whitespace(as_text(table.column(index)))
            known = pc.if_else(pc.is_in(trimmed, value_set=absent), pa.scalar(None, pa.string()), trimmed)
            table = table.set_column(index, field.name, known)
    return table


def is_text(kind: pa.DataType) -> bool:
    """Whether a column of this type holds strings, plain or dictionary-encoded.

    Example:
        >>> is_text(pa.dictionary(pa.int8(), pa.string())), is_text(pa.int8())
        (True, False)
    """
    if pa.types.is_dictionary(kind):
        kind = kind.value_type
    return bool(pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_string_view(kind))


def as_text(column: Any) -> Any:
    """The column's values as strings; numbers as they are printed.

    Example:
        >>> as_text(pa.array([3, None])).to_pylist()
        ['3', None]
    """
    return column if column.type == pa.string() else pc.cast(column, pa.string())


def as_numbers(column: Any, name: str) -> Numbers:
    """The column's values as numbers, NaN if missing.

    Args:
        column: Numbers, booleans or strings of numbers.
        name: The column, for the message.

    Raises:
        UserError: If a value is no number; with the row.

    Example:
        >>> as_numbers(pa.array(["1.5", None]), "height")
        array([1.5, nan])
    """
    try:
        if not (pa.types.is_integer(column.type) or pa.types.is_floating(column.type)):
            column = pc.cast(column, pa.float64(), safe=False)
        numbers: Numbers = _array(column).astype(np.float64, copy=False)
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError) as error:
        raise _no_number(column, name) from error
    return numbers


def _array(column: Any) -> NDArray[Any]:
    # Unlike a chunked array, a plain one does not copy by default.
    options = {} if isinstance(column, pa.ChunkedArray) else {"zero_copy_only": False}
    array: NDArray[Any] = column.to_numpy(**options)
    return array


def _no_number(column: Any, name: str) -> UserError:
    if not is_text(column.type):
        return UserError(f"column '{name}'", "must contain numbers", str(column.type))
    row, value = next(
        (row, value) for row, value in enumerate(column.to_pylist(), 1) if not _is_number(value)
    )
    return UserError(
        f"column '{name}'",
        "must contain numbers",
        f"{value!r} in row {row}",
        "Name it as categorical, or add the string to missing",
    )


def _is_number(value: str | None) -> bool:
    if value is None:
        return True
    try:
        pc.cast(pa.array([value]), pa.float64())
    except pa.ArrowInvalid:
        return False
    return True
