"""What a batch's predictions and ids are as columns, and columns of several batches as one."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import torch
from torch import Tensor

from polytask._errors import UserError


def output_column(name: str, output: Any, size: int, rows: Tensor | None) -> pa.Array:
    """A task's predictions: numbers, lists of fixed length or tensors of fixed shape; else lists.

    Args:
        name: The task.
        output: A tensor with a row for each row of the batch, or a tensor for each row.
        size: The number of rows in the batch.
        rows: The rows of the batch that the predictions are for; all others are null.

    Raises:
        UserError: If it is something else, or has another number of rows.

    Example:
        >>> output_column("height", torch.tensor([1.5, 2.0]), 3, torch.tensor([2, 0])).to_pylist()
        [2.0, None, 1.5]
    """
    expected = size if rows is None else len(rows)
    if isinstance(output, Tensor) and output.is_nested:
        output = output.unbind()
    listed = isinstance(output, (list, tuple)) and all(isinstance(one, Tensor) for one in output)
    if not (listed or (isinstance(output, Tensor) and output.ndim)) or len(output) != expected:
        found = type(output).__name__
        if isinstance(output, Tensor):
            found = f"shape {tuple(output.shape)}"
        elif listed:
            found = f"{len(output)} tensors"
        rule = f"the output must be a tensor with a row for each of the {expected} inputs"
        raise UserError(f"task '{name}'", rule, found, "Change it in adapters.logging.pred_transforms")
    if listed:
        return spread(_lists([_numpy(one) for one in output]), size, rows)
    return spread(_fixed(_numpy(output)), size, rows)


def target_column(target: Any, missing: Tensor | None, size: int, rows: Tensor | None) -> pa.Array:
    """A task's targets; a single label that is missing is null.

    Args:
        target: A tensor with a row for each row of the batch that has the task.
        missing: Which elements are missing; None if none is.
        size: The number of rows in the batch.
        rows: The rows of the batch that the targets are for.

    Example:
        >>> target_column(torch.tensor([3, -100]), torch.tensor([False, True]), 2, None).to_pylist()
        [3, None]
    """
    column = _fixed(_numpy(target))
    if missing is not None and target.ndim == 1:
        column = pa.array(_numpy(target), mask=_numpy(missing))
    return spread(column, size, rows)


def id_column(name: str, ids: Any, size: int) -> pa.Array:
    """A column of the user's ids.

    Args:
        name: The column.
        ids: Numbers or strings, one for each row.
        size: The number of rows in the batch.

    Raises:
        UserError: If they are something else.

    Example:
        >>> id_column("id", ["a7", "b2"], 2).to_pylist()
        ['a7', 'b2']
    """
    where, rule = "adapters.batch.id_accessor", f"must give a number or a string for each of the {size} rows"
    if isinstance(ids, Tensor):
        ids = ids.cpu().numpy()
    found = f"{type(ids).__name__} for '{name}'"
    if not isinstance(ids, (list, tuple, np.ndarray)) or len(ids) != size:
        raise UserError(where, rule, found)
    try:
        return pa.array([one.item() if isinstance(one, (Tensor, np.generic)) else one for one in ids])
    except (pa.ArrowException, TypeError, ValueError, RuntimeError) as error:
        raise UserError(where, rule, found) from error


def repeated(name: str, size: int) -> pa.Array:
    """A column with one string for each row.

    Args:
        name: The string.
        size: The number of rows.
    """
    return pa.array([name] * size, pa.string())


def nothing(size: int) -> pa.Array:
    """A column without a value, whose type other batches know.

    Args:
        size: The number of rows.
    """
    return pa.nulls(size)


def class_columns(name: str, output: Any, classes: Sequence[str], size: int, rows: Any) -> dict[str, Any]:
    """The predicted class by name, and the probability of each class, as far as an output has them.

    Args:
        name: The task.
        output: Scores or probabilities by class in the second dimension, a score of the second of two
            classes, or indices of classes.
        classes: The classes, in order.
        size: The number of rows in the batch.
        rows: The rows of the batch that the predictions are for.

    Returns:
        The columns by name; none if the output has another shape.

    Example:
        >>> columns = class_columns("sold", torch.tensor([[0.25, 0.75]]), ["no", "yes"], 1, None)
        >>> columns["sold.label"].to_pylist(), columns["sold.probability"].to_pylist()
        (['yes'], [[0.25, 0.75]])
    """
    if not isinstance(output, Tensor) or output.is_nested:
        return {}
    shares = None
    if not output.is_floating_point():
        indices = output
    elif output.ndim == 2 and output.shape[1] == len(classes):
        shares = _shares(output.float())
        indices = shares.argmax(dim=1)
    elif len(classes) == 2 and output[:1].numel() == len(output[:1]):
        second = output.float().reshape(-1)
        if not bool(((second >= 0) & (second <= 1)).all()):
            second = second.sigmoid()
        shares = torch.stack([1 - second, second], dim=1)
        indices = (second > 0.5).long()
    else:
        return {}
    if indices.ndim != 1 or (
        len(indices) and not 0 <= int(indices.min()) <= int(indices.max()) < len(classes)
    ):
        return {}
    labels = pa.array([classes[index] for index in indices.tolist()], pa.string())
    columns = {f"{name}.label": spread(labels, size, rows)}
    if shares is not None:
        columns[f"{name}.probability"] = spread(_fixed(_numpy(shares)), size, rows)
    return columns


def _shares(output: Tensor) -> Tensor:
    """Probabilities by class, of scores or of what are probabilities already."""
    whole = (output >= 0).all() and torch.allclose(output.sum(dim=1), output.new_ones(()), atol=1e-3)
    return output if whole else output.softmax(dim=1)


def spread(column: pa.Array, size: int, rows: Tensor | None) -> pa.Array:
    """A column of some rows as one of all rows, the others null.

    Args:
        column: The values of the rows.
        size: The number of all rows.
        rows: Which rows they are; None for all.
    """
    if rows is None:
        return column
    indices = np.full(size, -1)
    indices[rows.cpu().numpy()] = np.arange(len(rows))
    return column.take(pa.array(indices, mask=indices < 0))


def joined(tables: Sequence[pa.Table], names: Sequence[str]) -> pa.Table:
    """Tables with other columns, or columns of other shapes, as one.

    Args:
        tables: The tables.
        names: All columns, in order.

    Raises:
        UserError: If the columns of a name have no common type.

    Example:
        >>> joined([pa.table({"a": [1.5]}), pa.table({"b": [[1, 2]]})], ["a", "b"]).to_pylist()
        [{'a': 1.5, 'b': None}, {'a': None, 'b': [1, 2]}]
    """
    columns = {}
    for name in names:
        found = [table[name].combine_chunks() if name in table.column_names else None for table in tables]
        present = dict.fromkeys(column.type for column in found if column is not None)
        kinds = [kind for kind in present if not pa.types.is_null(kind)]
        kind = _common(name, kinds) if len(kinds) > 1 else (kinds or [pa.null()])[0]
        columns[name] = pa.chunked_array(
            [
                pa.nulls(len(table), kind)
                if column is None or pa.types.is_null(column.type)
                else _as(column, kind)
                for table, column in zip(tables, found, strict=True)
            ],
            kind,
        )
    return pa.table(columns)


def _common(name: str, kinds: Sequence[pa.DataType]) -> pa.DataType:
    parts = [_nesting(kind) for kind in kinds]
    depths = {depth for depth, _ in parts}
    values = list(dict.fromkeys(value for _, value in parts))
    numbers = all(pa.types.is_integer(value) or pa.types.is_floating(value) for value in values)
    if len(depths) > 1 or (len(values) > 1 and not numbers):
        raise UserError(
            f"column '{name}'",
            "must have values of one type and one number of dimensions in all batches",
            " and ".join(map(str, kinds)),
            "Change them in adapters.logging.pred_transforms",
        )
    kind = values[0] if len(values) == 1 else pa.float64()
    for _ in range(depths.pop()):
        kind = pa.list_(kind)
    return kind


def _nesting(kind: pa.DataType) -> tuple[int, pa.DataType]:
    """The number of lists around a value, and its type."""
    if isinstance(kind, pa.FixedShapeTensorType):
        return len(kind.shape), kind.value_type
    depth = 0
    while pa.types.is_list(kind) or pa.types.is_fixed_size_list(kind):
        depth, kind = depth + 1, kind.value_type
    return depth, kind


def _as(column: pa.Array, kind: pa.DataType) -> pa.Array:
    if column.type.equals(kind):
        return column
    if isinstance(column.type, pa.FixedShapeTensorType):
        shape = column.type.shape
        values = column.storage.to_pylist()
        return pa.array([None if one is None else np.reshape(one, shape).tolist() for one in values], kind)
    return pa.array(column.to_pylist(), kind)


def _numpy(values: Tensor) -> np.ndarray[Any, Any]:
    values = values.detach()
    return (values.float() if values.dtype == torch.bfloat16 else values).cpu().contiguous().numpy()


def _fixed(values: np.ndarray[Any, Any]) -> pa.Array:
    flat = pa.array(values.reshape(-1))
    if values.ndim == 1:
        return flat
    if values.ndim == 2:
        return pa.FixedSizeListArray.from_arrays(flat, values.shape[1])
    return pa.FixedShapeTensorArray.from_numpy_ndarray(values)


def _lists(values: Sequence[np.ndarray[Any, Any]]) -> pa.Array:
    kind = pa.from_numpy_dtype(values[0].dtype) if values else pa.float32()
    for _ in range(max((one.ndim for one in values), default=0)):
        kind = pa.list_(kind)
    return pa.array([one.tolist() for one in values], kind)


def as_arrays(table: pa.Table) -> Mapping[str, Any]:
    """The columns as numpy arrays; of objects if rows differ in length or are null.

    Args:
        table: A table.

    Example:
        >>> as_arrays(pa.table({"a": [1, 2], "b": [[1.0], [1.0, 2.0]]}))
        {'a': array([1, 2]), 'b': array([list([1.0]), list([1.0, 2.0])], dtype=object)}
    """
    return {name: _as_array(table[name].combine_chunks()) for name in table.column_names}


def _as_array(column: pa.Array) -> np.ndarray[Any, Any]:
    if isinstance(column, pa.FixedShapeTensorArray) and not column.null_count:
        tensors: np.ndarray[Any, Any] = column.to_numpy_ndarray()
        return tensors
    values = column.to_pylist()
    if isinstance(column.type, pa.FixedShapeTensorType):
        values = [None if one is None else np.reshape(one, column.type.shape) for one in values]
    fixed = not (pa.types.is_list(column.type) or column.null_count)
    if fixed or (pa.types.is_floating(column.type) and column.null_count):
        # Of numbers, null is NaN.
        return np.array(values, dtype=float if column.null_count else None)
    array = np.empty(len(values), dtype=object)
    array[:] = values
    return array
