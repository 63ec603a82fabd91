"""Record files: Parquet in long format, complete at any time.

While a training runs the latest rows are in additional files, ``<name>-<first step>.parquet``, so that rows
are added without writing all earlier ones again. `RecordFile.finish` merges them into the file.
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from polytask._errors import UserError, one_line
from polytask._files import part_of, publish
from polytask.diagnostics import _columns
from polytask.diagnostics._columns import Columns

_FIX = "Delete it, and train again"
# How often a reader tries again while a training merges files.
_TRIES = 10
RecordRow = tuple[Any, ...]


def schema_of(columns: Columns) -> pa.Schema:
    """The Arrow schema of a record file.

    Args:
        columns: The file's columns.
    """
    return pa.schema(list(columns))


AFFINITY = schema_of(_columns.AFFINITY)
GRADIENTS = schema_of(_columns.GRADIENTS)
LOSSES = schema_of(_columns.LOSSES)
WEIGHTS = schema_of(_columns.WEIGHTS)


class RecordFile:
    """One record file, with rows in the order of their steps.

    Args:
        path: The file.
        schema: Its columns.
    """

    def __init__(self, path: Path, schema: pa.Schema) -> None:
        self.path, self.schema = path, schema

    def cut(self, step: int) -> None:
        """Remove the rows from a step on, which a resumed run makes again.

        Args:
            step: The first step to remove.

        Raises:
            UserError: If the file cannot be read.
        """
        stale = _files(self.path)
        if not self.path.exists():
            _remove(stale[1:])
            return
        table = read(self.path, self.schema)
        kept = table.filter(pc.less(table["step"], step))
        if len(kept):
            self._write(stale.pop(0), kept)
        _remove(stale)

    def append(self, rows: Sequence[RecordRow], notes: Mapping[str, str]) -> None:
        """Add rows.

        New rows go to a file of their own; files are merged when the later ones are as large as the earlier
        one. The time that a training spends here grows by little more than its number of rows.

        Args:
            rows: In the order of the columns, of later steps than those before; at least one.
            notes: Metadata of the file.
        """
        columns = zip(*rows, strict=True)
        table = pa.table(
            [pa.array(column, field.type) for column, field in zip(columns, self.schema, strict=True)],
            schema=self.schema,
        )
        part = self.path.with_name(f"{self.path.stem}-{rows[0][0]}{self.path.suffix}")
        self._write(part if self.path.exists() else self.path, table.replace_schema_metadata(notes))
        files = _files(self.path)
        sizes = [_size(file) for file in files]
        first = len(files) - 1
        while first and sum(sizes[first:]) >= sizes[first - 1]:
            first -= 1
        self._join(files[first:])

    def finish(self) -> None:
        """Merge the additional files into the file."""
        if self.path.exists():
            self._join(_files(self.path))

    def _join(self, files: Sequence[Path]) -> None:
        if len(files) > 1:
            self._write(files[0], _joined(files, self.schema))
            # If the process is killed before they are removed, readers ignore the duplicate rows.
            _remove(files[1:])

    def _write(self, file: Path, table: pa.Table) -> None:
        file.parent.mkdir(parents=True, exist_ok=True)
        # One name for all parts: the next write replaces what a killed process left.
        part = part_of(self.path)
        pq.write_table(table, part)
        publish(part, file)


def read(path: Path, schema: pa.Schema) -> pa.Table:
    """The rows of a record file and of its additional files.

    Args:
        path: The file.
        schema: The columns that it must have.

    Raises:
        UserError: If it is not such a file.
    """
    for _ in range(_TRIES):
        try:
            return _joined(_files(path), schema)
        except FileNotFoundError:
            # The training has just merged files: list them again.
            continue
    raise UserError(str(path), "must be a record file", "none, or a broken link", _FIX)


def _files(path: Path) -> list[Path]:
    """The file and its additional files, in the order of their steps."""
    additional = path.parent.glob(f"{path.stem}-*{path.suffix}")
    steps = {file: file.stem.removeprefix(f"{path.stem}-") for file in additional}
    return [
        path,
        *sorted((file for file in steps if steps[file].isdecimal()), key=lambda file: int(steps[file])),
    ]


def _remove(files: Sequence[Path]) -> None:
    """Remove files, the last one first: the rest has no gap if the process is killed."""
    for file in reversed(files):
        file.unlink()


def _joined(files: Sequence[Path], schema: pa.Schema) -> pa.Table:
    """The rows of files, each step from the first file that has it."""
    tables: list[pa.Table] = []
    last = -1
    for file in files:
        table = _checked(file, schema)
        table = table.filter(pc.greater(table["step"], last))
        last = pc.max(table["step"]).as_py() if len(table) else last
        tables.append(table)
    notes = tables[-1].schema.metadata
    return pa.concat_tables([table.replace_schema_metadata(notes) for table in tables])


def _checked(file: Path, schema: pa.Schema) -> pa.Table:
    with _opened(file) as parquet:
        table = parquet.read()
        table.validate(full=True)
        names, types, found = table.schema.names, table.schema.types, ", ".join(map(str, table.schema))
    if names != schema.names or types != schema.types:
        raise UserError(str(file), f"must have the columns {', '.join(schema.names)}", one_line(found), _FIX)
    for name in names:
        if table[name].null_count:
            raise UserError(str(file), "must have a value in every row", f"none in the column {name}", _FIX)
    if len(table) and (least := pc.min(table["step"]).as_py()) < 0:
        raise UserError(str(file), "must have steps of at least 0", least, _FIX)
    return table


def _size(file: Path) -> int:
    with _opened(file) as parquet:
        rows: int = parquet.metadata.num_rows
    return rows


@contextmanager
def _opened(file: Path) -> Iterator[pq.ParquetFile]:
    """A Parquet file; its errors become one line."""
    try:
        with pq.ParquetFile(file) as parquet:
            yield parquet
    except FileNotFoundError:
        raise
    except (pa.ArrowException, OSError, UnicodeDecodeError) as error:
        empty = file.is_file() and not file.stat().st_size
        found = "an empty file" if empty else f"a damaged file ({one_line(error)})"
        raise UserError(str(file), "must be a record file", found, _FIX) from error
