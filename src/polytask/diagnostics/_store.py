"""Record files: Parquet in long format, whole at every moment."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from polytask._errors import UserError

FOLDER = "records"
_STEP = [("step", pa.int64()), ("epoch", pa.int64())]
GRADIENTS = pa.schema(
    [*_STEP, ("group", pa.string()), ("task", pa.string()), ("other", pa.string()), ("inner", pa.float64())]
)
WEIGHTS = pa.schema([*_STEP, ("task", pa.string()), ("weight", pa.float64())])
LOSSES = pa.schema([*_STEP, ("task", pa.string()), ("loss", pa.float64())])
AFFINITY = pa.schema(
    [*_STEP, ("form", pa.string()), ("task", pa.string()), ("other", pa.string()), ("affinity", pa.float64())]
)
Row = tuple[Any, ...]


class RecordFile:
    """One record file.

    Args:
        path: The file.
        schema: Its columns.
    """

    def __init__(self, path: Path, schema: pa.Schema) -> None:
        self.path, self.schema = path, schema

    def cut(self, step: int) -> None:
        """Drop the rows from a step on, which a resumed run makes again; nothing where there is no file.

        Args:
            step: The first step to drop.

        Raises:
            UserError: Where the file cannot be read.
        """
        if self.path.exists():
            table = read(self.path, self.schema)
            kept = table.filter(pc.less(table["step"], step))
            if not len(kept):
                self.path.unlink()
            elif len(kept) < len(table):
                self._write(kept)

    def append(self, rows: Sequence[Row], notes: Mapping[str, str]) -> None:
        """Add rows; the file is written beside itself and moved.

        Args:
            rows: In the order of the columns.
            notes: What to keep about the file as a whole.
        """
        columns = list(zip(*rows, strict=True)) or [()] * len(self.schema)
        table = pa.table(
            [pa.array(column, field.type) for column, field in zip(columns, self.schema, strict=True)],
            schema=self.schema,
        )
        if self.path.exists():
            earlier = read(self.path, self.schema)
            table = pa.concat_tables([earlier.replace_schema_metadata(None), table])
        self._write(table.replace_schema_metadata(notes))

    def _write(self, table: pa.Table) -> None:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        part = self.path.with_name(self.path.name + ".part")
        pq.write_table(table, part)
        part.replace(self.path)


def read(path: Path, schema: pa.Schema) -> pa.Table:
    """The rows of a record file.

    Args:
        path: The file.
        schema: The columns it has to have.

    Raises:
        UserError: Where it is no such file.
    """
    try:
        table = pq.read_table(path)
    except (pa.ArrowInvalid, OSError) as error:
        found = (
            "an empty file" if path.exists() and not path.stat().st_size else f"not a Parquet file: {error}"
        )
        raise UserError(str(path), "is a damaged record file", found, "Delete it, and train again") from error
    if table.schema.names != schema.names or table.schema.types != schema.types:
        rule = f"has the columns {', '.join(schema.names)}"
        raise UserError(str(path), rule, ", ".join(map(str, table.schema)), "Delete it, and train again")
    return table
