"""Predictions as one Parquet file: written batch by batch, read as arrays."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from polytask._errors import UserError
from polytask._files import part_of, publish, replacing
from polytask.runs._prediction_columns import as_arrays, joined

NAME = "predictions.parquet"
# Marks the columns that are a task's predictions.
_TASK = {b"polytask": b"task"}


@dataclass
class _Part:
    """Batches that have the same columns.

    Attributes:
        path: Their file.
        writer: Writes it.
        indices: By row the number of its loader and its index there.
    """

    path: Path
    writer: pq.ParquetWriter
    indices: list[np.ndarray[Any, Any]] = field(default_factory=list)


class PredictionFile:
    """A file of predictions that is written batch by batch, and appears when it is complete.

    Its rows are in the order of the data, whatever the order in which they were predicted. Batches may have
    other columns, or columns of other shapes: what a row has no prediction for is null, and shapes that
    differ become lists.

    Args:
        path: The file; its folder is created with the first batch.
        order: The columns that come first, in order, as far as they are written.

    Example:
        >>> import tempfile
        >>> file = PredictionFile(Path(tempfile.mkdtemp()) / NAME, ["row", "height"])
        >>> file.append({"row": pa.array([1, 0]), "height": pa.array([1.5, 2.0])}, ["height"], (0, [1, 0]))
        >>> file.finish()
        >>> read_predictions(file.path.parent)
        {'height': array([2. , 1.5])}
    """

    def __init__(self, path: Path, order: Sequence[str]) -> None:
        self.path = path
        self._order = order
        self._parts: dict[pa.Schema, _Part] = {}
        self._last = (-1, -1)
        self._sorted = True

    def append(
        self,
        columns: Mapping[str, pa.Array],
        tasks: Collection[str],
        row_of: tuple[int, Sequence[int]],
    ) -> None:
        """Append one batch.

        Args:
            columns: Its columns by name.
            tasks: Those that are a task's predictions.
            row_of: The number of its loader, and the index in that loader's data of each of its rows.
        """
        table = _marked(pa.table(dict(columns)), tasks)
        schema = table.schema
        if schema not in self._parts:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            file = part_of(self.path.with_name(f"{self.path.stem}.{len(self._parts)}{self.path.suffix}"))
            self._parts[schema] = _Part(file, pq.ParquetWriter(file, schema))
        part = self._parts[schema]
        part.writer.write_table(table)
        loader, rows = row_of
        places = np.stack([np.full(len(rows), loader), np.asarray(rows, dtype=np.int64)])
        part.indices.append(places)
        if len(rows):
            begins, ends = (tuple(places[:, end].tolist()) for end in (0, -1))
            self._sorted &= begins > self._last and bool((np.diff(places[1]) > 0).all())
            self._last = ends

    def finish(self) -> None:
        """Give the file its name.

        Raises:
            UserError: If the columns of two batches have no common type.
        """
        for part in self._parts.values():
            part.writer.close()
        parts = list(self._parts.values())
        if not parts:
            return
        if len(parts) == 1 and self._sorted:
            publish(parts[0].path, self.path)
            return
        places = np.concatenate([own for part in parts for own in part.indices], axis=1)
        try:
            with replacing(self.path) as file:
                tables = [pq.read_table(part.path) for part in parts]
                pq.write_table(_in_order(tables, places, self._order), file)
        finally:
            self._remove()

    def discard(self) -> None:
        """Remove what was written."""
        for part in self._parts.values():
            part.writer.close()
        self._remove()

    def _remove(self) -> None:
        for part in self._parts.values():
            part.path.unlink(missing_ok=True)


def merge(files: Sequence[Path], into: Path, order: Sequence[str]) -> None:
    """Make one file of those that several processes wrote; a row that two of them have is in it once.

    Args:
        files: The files, which are removed.
        into: The new file.
        order: The columns that come first; the first two say which row it is.

    Raises:
        UserError: If their columns have no common type.
    """
    tables = [pq.read_table(file) for file in files]
    loader, row = order[:2]
    known = [table.column(loader).to_pylist() if loader in table.column_names else None for table in tables]
    names = list(dict.fromkeys(name for one in known if one for name in one))
    places = [
        [names.index(name) for name in one] if one else [0] * len(table)
        for one, table in zip(known, tables, strict=True)
    ]
    rows = np.concatenate([table.column(row).to_numpy() for table in tables])
    whole = np.stack([np.concatenate(places).astype(np.int64), rows])
    with replacing(into) as part:
        pq.write_table(_in_order(tables, whole, order, once=True), part)
    for file in files:
        file.unlink()


def _in_order(
    tables: Sequence[pa.Table], places: np.ndarray[Any, Any], order: Sequence[str], once: bool = False
) -> pa.Table:
    """The tables as one, in the order of the loaders and of their rows."""
    found = list(dict.fromkeys(name for table in tables for name in table.column_names))
    names = [name for name in order if name in found]
    tasks = {field.name for table in tables for field in table.schema if field.metadata == _TASK}
    table = _marked(joined(tables, [*names, *(name for name in found if name not in names)]), tasks)
    indices = np.lexsort((places[1], places[0]))
    if once:
        ordered = places[:, indices]
        new = np.ones(len(indices), dtype=bool)
        new[1:] = (ordered[:, 1:] != ordered[:, :-1]).any(axis=0)
        indices = indices[new]
    return table.combine_chunks().take(pa.array(indices))


def _marked(table: pa.Table, tasks: Collection[str]) -> pa.Table:
    fields = [field.with_metadata(_TASK if field.name in tasks else None) for field in table.schema]
    return pa.table(table.columns, schema=pa.schema(fields))


def read_predictions(folder: str | Path, *, rows: bool = False) -> Mapping[str, Any]:
    """The predictions of a run as arrays by task.

    Args:
        folder: The folder that holds ``predictions.parquet``.
        rows: Whether all columns are returned, ``row`` and ids first.

    Raises:
        UserError: If there is no such file.

    Example:
        After ``polytask predict``, with the folder that it printed::

            predictions = read_predictions("runs/digits/one/predictions")
            predictions["digit"]
    """
    path = Path(folder) / NAME
    if not path.exists():
        raise UserError(str(path), "the file does not exist", None, "Run `polytask predict` first")
    table = pq.read_table(path)
    tasks = [field.name for field in table.schema if field.metadata == _TASK]
    return as_arrays(table if rows or not tasks else table.select(tasks))
