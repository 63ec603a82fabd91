"""A table in CSV or Parquet files: which files they are, and whether they can be read."""

import csv
import gzip
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TextIO

import pyarrow as pa
import pyarrow.csv as pc
import pyarrow.parquet as pq

from polytask._errors import Reason, UserError, hint
from polytask.data._table_values import cleaned

PathLike = str | Path
_ENDINGS = (".parquet", ".csv", ".csv.gz")


def is_parquet(path: Path) -> bool:
    """Whether a file is Parquet by its name; any other is CSV, such as ``adult.data``.

    Example:
        >>> is_parquet(Path("part-0.parquet")), is_parquet(Path("adult.data"))
        (True, False)
    """
    return path.suffix.lower() == ".parquet"


def table_files(files: PathLike | Sequence[PathLike]) -> list[Path]:
    """The files of a table: the named ones, and those in named folders, sorted by name.

    Args:
        files: A file, a folder, or a list of them.

    Raises:
        UserError: If there is no such file, or a folder holds none, or both CSV and Parquet.
    """
    given = [files] if isinstance(files, str | Path) else list(files)
    found = [path for name in given for path in _in_folder(Path(name))]
    if not found:
        raise UserError("files", "must name at least one file", "none")
    for path in found:
        if not path.is_file():
            others = path.parent.iterdir() if path.parent.is_dir() else ()
            names = [other.name for other in sorted(others)]
            fix = hint(path.name, names, "In the folder") if names else "Name a file, or a folder of files"
            raise UserError(str(path), "there is no such file", None, fix)
    return found


def _in_folder(path: Path) -> list[Path]:
    if not path.is_dir():
        return [path]
    hidden = ("_", ".")
    named = (p for p in path.rglob("*") if p.name.lower().endswith(_ENDINGS))
    inside = sorted(p for p in named if not p.name.startswith(hidden))
    if len({is_parquet(p) for p in inside}) != 1:
        found = f"{inside[0].name} and {inside[-1].name}" if inside else f"none of {', '.join(_ENDINGS)}"
        raise UserError(str(path), "a folder must contain files of one format", found, "Name the files")
    return inside


@dataclass(frozen=True)
class CSVFormat:
    """How a CSV file is written.

    Args:
        names: The columns, if the file has no header line.
        delimiter: The character between two cells.
    """

    names: Sequence[str] | None = None
    delimiter: str = ","

    def __post_init__(self) -> None:
        if not isinstance(self.delimiter, str) or len(self.delimiter) != 1:
            raise UserError("delimiter", "must be one character", repr(self.delimiter))

    def header(self, path: Path) -> list[str]:
        """The columns of a file."""
        with whole(path), _opened(path) as lines:
            first = next(csv.reader(lines, delimiter=self.delimiter), [])
        if not first:
            raise UserError(str(path), "must have at least one line", "an empty file")
        if self.names is not None and len(self.names) != len(first):
            raise UserError(
                f"{path}, line 1",
                f"must have as many cells as names, {len(self.names)}",
                f"{len(first)} cells",
            )
        return [name.strip() for name in first] if self.names is None else list(self.names)

    def read(self, path: Path, columns: Sequence[str]) -> pa.Table:
        """These columns of a file, as strings."""
        header = self.header(path)
        check_columns(columns, header, path)
        with whole(path):
            self._refuse_open_quote(path)
            try:
                return pc.read_csv(
                    str(path),
                    read_options=pc.ReadOptions(column_names=header, skip_rows=int(self.names is None)),
                    parse_options=pc.ParseOptions(delimiter=self.delimiter, newlines_in_values=True),
                    convert_options=pc.ConvertOptions(
                        column_types=dict.fromkeys(header, pa.string()), include_columns=list(columns)
                    ),
                )
            except pa.ArrowInvalid:
                self._refuse_ragged(path, len(header))
                raise

    def _refuse_open_quote(self, path: Path) -> None:
        """Arrow reads the rows after a quote that is not closed as part of its cell."""
        with _opened(path) as lines:
            quotes = sum(part.count(b'"') for part in iter(partial(lines.buffer.read, 2**20), b""))
        # Reading rows in Python takes long, and pairs of quotes hardly hide an open one.
        if quotes % 2 == 0:
            return
        with _opened(path) as lines:
            size = 0  # of the row so far, in characters

            def measured() -> Iterator[str]:
                nonlocal size
                for line in lines:
                    size += len(line)
                    yield line

            reader = csv.reader(measured(), delimiter=self.delimiter, strict=True)
            begin = 1
            try:
                for _ in reader:
                    begin, size = reader.line_num + 1, 0
            except csv.Error as error:
                # Arrow does not limit a cell's length, and reports all other errors better.
                if size > csv.field_size_limit():
                    return
                rule = "a quoted cell must end with a quote"
                raise UserError(
                    f"{path}, line {begin}", rule, Reason.said(error), "Close the quote"
                ) from error

    def _refuse_ragged(self, path: Path, width: int) -> None:
        with _opened(path) as lines:
            reader = csv.reader(lines, delimiter=self.delimiter)
            begin = 1
            for row in reader:
                if row and len(row) != width:
                    raise UserError(
                        f"{path}, line {begin}",
                        f"a row must have {width} cells",
                        f"{len(row)}",
                        "Correct the row",
                    )
                begin = reader.line_num + 1


def read_table(
    files: Sequence[Path], columns: Sequence[str], form: CSVFormat, missing: Sequence[str]
) -> pa.Table:
    """These columns of all files, one after the other.

    Args:
        files: What `table_files` returned.
        columns: Names; each is read once.
        form: How CSV files are written.
        missing: Strings that stand for a missing value.

    Raises:
        UserError: If a column does not exist, a file cannot be read, or files do not fit each other.
    """
    columns = list(dict.fromkeys(columns))
    tables = [_read(path, columns, form) for path in files]
    with _one_type(files):
        table = pa.concat_tables(tables, promote_options="permissive")
    if not len(table):
        raise UserError(str(files[0]), "must have at least one row", "none")
    return cleaned(table, missing)


def _read(path: Path, columns: Sequence[str], form: CSVFormat) -> pa.Table:
    if not is_parquet(path):
        return form.read(path, columns)
    with open_parquet(path, columns) as file, whole(path):
        return file.read(columns=list(columns))


def open_parquet(path: Path, columns: Sequence[str]) -> pq.ParquetFile:
    """A Parquet file that has these columns.

    Raises:
        UserError: If it cannot be read, or a column does not exist.
    """
    with whole(path):
        # Pages come one by one: several row groups are open at a time.
        file = pq.ParquetFile(path, pre_buffer=False, buffer_size=2**20)
    check_columns(columns, file.schema_arrow.names, path)
    return file


def common_schema(files: Sequence[Path], schemas: Sequence[pa.Schema]) -> pa.Schema:
    """The types that fit the columns of all files: integers and floats become floats, for example.

    Args:
        files: The files, for the message.
        schemas: Their columns, the same names in one order.

    Raises:
        UserError: If a column's types cannot be combined.
    """
    with _one_type(files):
        return pa.unify_schemas(schemas, promote_options="permissive").remove_metadata()


@contextmanager
def _one_type(files: Sequence[Path]) -> Iterator[None]:
    try:
        yield
    except (pa.ArrowInvalid, pa.ArrowTypeError) as error:
        rule = "a column must have one type in all files"
        raise UserError(str(files[0].parent), rule, Reason.said(error)) from error


def check_columns(columns: Sequence[str], header: Sequence[str], path: Path) -> None:
    """Raise if a column does not exist, or exists twice."""
    for name in columns:
        if name not in header:
            raise UserError(str(path), f"no column is called '{name}'", None, hint(name, header, "Columns"))
        if list(header).count(name) > 1:
            raise UserError(str(path), "column names must be unique", f"'{name}' twice", "Rename one of them")


@contextmanager
def whole(path: Path) -> Iterator[None]:
    """Name the file that cannot be read."""
    try:
        yield
    except (pa.ArrowException, OSError, EOFError, UnicodeDecodeError, csv.Error) as error:
        rule = f"must be a complete {'Parquet' if is_parquet(path) else 'CSV'} file"
        raise UserError(str(path), rule, Reason.said(error), "Copy or write it again") from error


def _opened(path: Path) -> TextIO:
    if path.name.lower().endswith(".gz"):
        return gzip.open(path, "rt", encoding="utf-8-sig", newline="")
    return path.open(encoding="utf-8-sig", newline="")
