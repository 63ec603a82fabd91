"""The values of a table's columns, as strings or as numbers, with empty cells missing."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from polytask._errors import UserError
from polytask.data._text_forms import decoded, text_form

Numbers = NDArray[np.float64]
_NUMBERS_OF = {"true": 1.0, "false": 0.0}


def cleaned(table: pa.Table, missing: Sequence[str]) -> pa.Table:
    """The table with its strings trimmed, bytes as strings, and null for what stands for a missing value.

    Example:
        >>> cleaned(pa.table({"a": [" 1", "?", ""], "b": [1, 9, 2]}), ["", "?", "9"]).to_pydict()
        {'a': ['1', None, None], 'b': [1, None, 2]}
    """
    numbers = [float(text) for text in missing if text and _parses_as_float(text)]
    whole = [f"{text_form(text)}.0" for text in missing if text_form(text).lstrip("-").isdigit()]
    strings = pa.array([*missing, *map(text_form, missing), *whole], pa.string())
    for index, field in enumerate(table.schema):
        column = table.column(index)
        if is_text(field.type) or is_bytes(field.type):
            column = pc.utf8_trim_whitespace(as_text(column, field.name))
            absent = pc.is_in(column, value_set=strings)
        elif numbers and (pa.types.is_integer(field.type) or pa.types.is_floating(field.type)):
            absent = pc.is_in(pc.cast(column, pa.float64(), safe=False), value_set=pa.array(numbers))
        else:
            continue
        known = pc.if_else(absent, pa.scalar(None, column.type), column)
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


def is_bytes(kind: pa.DataType) -> bool:
    """Whether a column of this type holds bytes, plain or dictionary-encoded.

    Example:
        >>> is_bytes(pa.binary(2)), is_bytes(pa.string())
        (True, False)
    """
    if pa.types.is_dictionary(kind):
        kind = kind.value_type
    fixed = pa.types.is_fixed_size_binary(kind) or pa.types.is_binary_view(kind)
    return bool(fixed or pa.types.is_binary(kind) or pa.types.is_large_binary(kind))


def as_text(column: Any, name: str) -> Any:
    """The column's values as strings, numbers as they are printed; null if missing.

    Args:
        column: The values.
        name: The column, for the message.

    Raises:
        UserError: If the values have no string, such as lists.

    Example:
        >>> as_text(pa.array([3, None]), "code").to_pylist()
        ['3', None]
    """
    kind = column.type
    if kind == pa.string():
        return column
    if pa.types.is_dictionary(kind):
        return as_text(pc.cast(column, kind.value_type), name)
    if is_bytes(kind):
        return pa.array([v if v is None else decoded(v) for v in column.to_pylist()], pa.string())
    if pa.types.is_float16(kind):
        return as_text(pc.cast(column, pa.float32()), name)
    if pa.types.is_floating(kind):
        column = pc.if_else(pc.is_nan(column), pa.scalar(None, kind), column)
    try:
        return pc.cast(column, pa.string())
    except pa.ArrowNotImplementedError as error:
        rule = "must hold numbers, strings, booleans or times"
        raise UserError(f"column '{name}'", rule, str(kind), "Leave it out, or convert it") from error


def distinct(column: Any, name: str) -> tuple[list[str], NDArray[np.int64]]:
    """The different strings of a column, and for each row which of them it has; their number if missing.

    Args:
        column: What `as_text` takes.
        name: The column, for the message.

    Example:
        >>> distinct(pa.array(["b", None, "b"]), "code")
        (['b'], array([0, 1, 0]))
    """
    strings = as_text(column, name)
    if isinstance(strings, pa.ChunkedArray):
        strings = strings.combine_chunks()
    encoded = pc.dictionary_encode(strings)
    if isinstance(encoded, pa.ChunkedArray):
        encoded = encoded.combine_chunks()
    texts: list[str] = encoded.dictionary.to_pylist()
    rows = pc.fill_null(encoded.indices, len(texts)).to_numpy(zero_copy_only=False)
    return texts, rows.astype(np.int64, copy=False)


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
    if is_bytes(column.type):
        column = as_text(column, name)
    try:
        if not (pa.types.is_integer(column.type) or pa.types.is_floating(column.type)):
            column = pc.cast(column, pa.float64(), safe=False)
        numbers: Numbers = _array(column).astype(np.float64, copy=False)
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError) as error:
        if is_text(column.type) and holds_booleans(column, name):
            texts, rows = distinct(column, name)
            numbers = np.array([*(_NUMBERS_OF[text_form(text)] for text in texts), np.nan])[rows]
        else:
            raise _no_number(column, name) from error
    return numbers


def holds_booleans(column: Any, name: str) -> bool:
    """Whether all of a column's strings are booleans, as CSV files write them.

    Example:
        >>> holds_booleans(pa.array(["True", None, "False"]), "sold")
        True
    """
    return all(text_form(text) in _NUMBERS_OF for text in distinct(column, name)[0])


def _array(column: Any) -> NDArray[Any]:
    # Unlike a chunked array, a plain one does not copy by default.
    options = {} if isinstance(column, pa.ChunkedArray) else {"zero_copy_only": False}
    array: NDArray[Any] = column.to_numpy(**options)
    return array


def _no_number(column: Any, name: str) -> UserError:
    if not is_text(column.type):
        return UserError(f"column '{name}'", "must contain numbers", str(column.type))
    row, value = next(
        (row, value) for row, value in enumerate(column.to_pylist(), 1) if not _parses_as_float(value)
    )
    return UserError(
        f"column '{name}'",
        "must contain numbers",
        f"{value!r} in row {row}",
        "Name it as categorical, or add the string to missing",
    )


def _parses_as_float(value: str | None) -> bool:
    if value is None:
        return True
    try:
        pc.cast(pa.array([value]), pa.float64())
    except pa.ArrowInvalid:
        return False
    return True
