"""Predictions as one Parquet file: written batch by batch, read as arrays."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from torch import Tensor

from polytask._errors import UserError
from polytask._files import part_of, publish


class PredictionFile:
    """A file of predictions that is written batch by batch, and appears when it is complete.

    Args:
        path: The file; its folder is created with the first batch.
        tasks: All tasks, in order.

    Example:
        >>> import tempfile
        >>> file = PredictionFile(Path(tempfile.mkdtemp()) / "predictions.parquet", ["height"])
        >>> file.append({"height": torch.tensor([1.5, 2.0])}, None, 2)
        >>> file.finish()
        >>> read_predictions(file.path.parent)
        {'height': array([1.5, 2. ])}
    """

    def __init__(self, path: Path, tasks: Sequence[str]) -> None:
        self.path = path
        self._part = part_of(path)
        self._tasks = tasks
        self._writer: pq.ParquetWriter | None = None

    def append(self, outputs: Mapping[str, Any], rows: Mapping[str, Tensor | None] | None, size: int) -> None:
        """Append one batch.

        Args:
            outputs: The predictions by task.
            rows: With task ids, the rows of the batch that each task's predictions are for.
            size: The number of rows in the batch.

        Raises:
            UserError: If an output is not a tensor with a row for each input, or changes its shape.
        """
        columns = {
            name: _column(name, output, size, (rows or {}).get(name)) for name, output in outputs.items()
        }
        table = pa.table(columns)
        if self._writer is None:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self._writer = pq.ParquetWriter(self._part, self._schema(table, rows is not None))
        self._writer.write_table(_filled(table, self._writer.schema))

    def finish(self) -> None:
        """Give the file its name."""
        if self._writer is not None:
            self._writer.close()
            publish(self._part, self.path)

    def discard(self) -> None:
        """Remove what was written."""
        if self._writer is not None:
            self._writer.close()
            self._part.unlink(missing_ok=True)

    def _schema(self, table: pa.Table, routed: bool) -> pa.Schema:
        """The first batch's columns; with task ids, tasks that it lacks get the type of its first column."""
        missing = [name for name in self._tasks if routed and name not in table.column_names]
        return pa.schema([*table.schema, *(pa.field(name, table.schema[0].type) for name in missing)])


def _filled(table: pa.Table, schema: pa.Schema) -> pa.Table:
    """The table with null columns for the tasks that it lacks."""
    for field in table.schema:
        expected = schema.field(field.name).type if field.name in schema.names else None
        if not field.type.equals(expected):
            raise UserError(
                f"task '{field.name}'",
                "must have outputs of one shape in all batches",
                f"{field.type} after {expected}",
                "Bring them to one shape in adapters.logging.pred_transforms",
            )
    columns = [
        table[field.name] if field.name in table.column_names else pa.nulls(len(table), field.type)
        for field in schema
    ]
    return pa.table(columns, schema=schema)


def _column(name: str, output: Any, size: int, rows: Tensor | None) -> pa.Array:
    expected = size if rows is None else len(rows)
    if not isinstance(output, Tensor) or output.ndim == 0 or len(output) != expected:
        found = f"shape {tuple(output.shape)}" if isinstance(output, Tensor) else type(output).__name__
        raise UserError(
            f"task '{name}'",
            f"the output must be a tensor with a row for each of the {expected} inputs",
            found,
            "Change it in adapters.logging.pred_transforms",
        )
    if output.dtype == torch.bfloat16:
        output = output.float()
    values = output.detach().cpu().contiguous().numpy()
    flat = pa.array(values.reshape(-1))
    if values.ndim == 1:
        column: pa.Array = flat
    elif values.ndim == 2:
        column = pa.FixedSizeListArray.from_arrays(flat, values.shape[1])
    else:
        column = pa.FixedShapeTensorArray.from_numpy_ndarray(values)
    if rows is None:
        return column
    indices = np.full(size, -1)
    indices[rows.cpu().numpy()] = np.arange(len(rows))
    return column.take(pa.array(indices, mask=indices < 0))


def read_predictions(folder: str | Path) -> Mapping[str, Any]:
    """The predictions of a run as arrays by task.

    Args:
        folder: The folder that holds ``predictions.parquet``.

    Raises:
        UserError: If there is no such file.

    Example:
        After ``polytask predict``, with the folder that it printed::

            predictions = read_predictions("runs/digits/one/predictions")
            predictions["digit"]
    """
    path = Path(folder) / "predictions.parquet"
    if not path.exists():
        raise UserError(str(path), "the file does not exist", None, "Run `polytask predict` first")
    table = pq.read_table(path)
    arrays = {}
    for name in table.column_names:
        column = table[name].combine_chunks()
        if isinstance(column, pa.FixedShapeTensorArray):
            arrays[name] = column.to_numpy_ndarray()
        else:
            arrays[name] = np.array(column.to_pylist())
    return arrays
