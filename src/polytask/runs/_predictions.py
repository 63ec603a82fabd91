"""Predictions as one Parquet file, written batch by batch."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import BasePredictionWriter
from torch import Tensor

from polytask._errors import UserError
from polytask._files import part_of, publish
from polytask._lightning._noise import Silence, silence


class PredictionWriter(BasePredictionWriter):
    """Writes ``predictions.parquet``: a row for each input in the loader's order, a column by task.

    A task's column holds numbers where its output has one for each row, lists of fixed length where
    it has a vector, and fixed-shape tensors otherwise. With task ids, the rows of other tasks are
    null. The file appears when all is written; a killed run leaves none.

    Args:
        folder: Where to write; made where it does not exist.

    Raises:
        UserError: Where an output is not a tensor with a row for each input.

    Example:
        >>> PredictionWriter("predictions").path.name
        'predictions.parquet'
    """

    def __init__(self, folder: str | Path) -> None:
        super().__init__(write_interval="batch")
        self.path = Path(folder) / "predictions.parquet"
        self._writer: pq.ParquetWriter | None = None
        self._part = part_of(self.path)
        self._tasks: list[str] = []

    def on_predict_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Begin a file."""
        silence(Silence.PREDICTIONS)
        self._writer = None
        self._tasks = list(getattr(pl_module, "names", ()))
        if trainer.world_size > 1:
            name = f"predictions-{trainer.global_rank}.parquet"
            self.path = self.path.with_name(name)
            self._part = part_of(self.path)

    def write_on_batch_end(
        self,
        trainer: pl.Trainer,
        pl_module: pl.LightningModule,
        prediction: Any,
        batch_indices: Sequence[int] | None,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int,
    ) -> None:
        """Append one batch."""
        outputs, rows, size = prediction["outputs"], prediction["rows"], prediction["size"]
        columns = {
            name: _column(name, output, size, (rows or {}).get(name)) for name, output in outputs.items()
        }
        table = pa.table(columns)
        if self._writer is None:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self._writer = pq.ParquetWriter(self._part, self._schema(table, rows is not None))
        self._writer.write_table(_filled(table, self._writer.schema))

    def _schema(self, table: pa.Table, routed: bool) -> pa.Schema:
        """The first batch's columns; with task ids it may lack some tasks, which follow it in kind."""
        missing = [name for name in self._tasks if routed and name not in table.column_names]
        return pa.schema([*table.schema, *(pa.field(name, table.schema[0].type) for name in missing)])

    def on_predict_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Finish the file."""
        if self._writer is not None:
            self._writer.close()
            publish(self._part, self.path)

    def on_exception(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, exception: BaseException
    ) -> None:
        """Leave nothing half-written."""
        if self._writer is not None:
            self._writer.close()
            self._part.unlink(missing_ok=True)


def _filled(table: pa.Table, schema: pa.Schema) -> pa.Table:
    """The table with null columns for the tasks that it lacks."""
    for field in table.schema:
        expected = schema.field(field.name).type if field.name in schema.names else None
        if not field.type.equals(expected):
            raise UserError(
                f"task '{field.name}'",
                "has outputs of one shape in all batches",
                f"{field.type} after {expected}",
                "Bring them to one shape in adapters.logging.pred_transforms",
            )
    columns = [
        table[field.name] if field.name in table.column_names else pa.nulls(len(table), field.type)
        for field in schema
    ]
    return pa.table(columns, schema=schema)


def _column(name: str, output: Any, size: int, rows: Tensor | None) -> pa.Array:
    if (
        not isinstance(output, Tensor)
        or output.ndim == 0
        or len(output) != (size if rows is None else len(rows))
    ):
        found = f"shape {tuple(output.shape)}" if isinstance(output, Tensor) else type(output).__name__
        raise UserError(
            f"task '{name}'",
            f"needs an output tensor with a row for each of the {size if rows is None else len(rows)} inputs",
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
    places = np.full(size, -1)
    places[rows.cpu().numpy()] = np.arange(len(rows))
    return column.take(pa.array(places, mask=places < 0))


def read_predictions(folder: str | Path) -> Mapping[str, Any]:
    """The predictions of a run as arrays by task.

    Args:
        folder: The folder that holds ``predictions.parquet``.

    Raises:
        UserError: Where there is no such file.
    """
    path = Path(folder) / "predictions.parquet"
    if not path.exists():
        raise UserError(str(path), "there are no predictions", None, "Run `polytask predict` first")
    table = pq.read_table(path)
    arrays = {}
    for name in table.column_names:
        column = table[name].combine_chunks()
        if isinstance(column, pa.FixedShapeTensorArray):
            arrays[name] = column.to_numpy_ndarray()
        else:
            arrays[name] = np.array(column.to_pylist())
    return arrays
