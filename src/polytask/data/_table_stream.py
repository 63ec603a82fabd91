"""Parquet files that are larger than memory, read in whole batches and shuffled in windows."""

import copy
import itertools
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import torch
from torch import Tensor
from torch.utils.data import IterableDataset, get_worker_info

from polytask._checks import check_integer
from polytask._errors import UserError
from polytask._tasks import TaskType
from polytask.data._seeded import ranks
from polytask.data._table_dataset import Inputs, check_inputs, target_types, targets_of
from polytask.data._table_files import common_schema, is_parquet, open_parquet, table_files, whole
from polytask.data._table_inputs import TableInputs
from polytask.data._table_targets import TableTargets
from polytask.data._table_values import cleaned
from polytask.data._unseen import UnseenValues

TableBatch = tuple[Inputs, dict[str, Tensor]]
_OPEN = 4
_CHUNK = 2**16


@dataclass(frozen=True)
class _Piece:
    """Rows of one row group, from ``begin`` to before ``end``."""

    path: Path
    group: int
    begin: int
    end: int


class TableStream(IterableDataset[TableBatch]):
    """Parquet files, or a folder of them, of any size: whole batches, shuffled in windows.

    The stream is a loader; ``DataLoader(stream, batch_size=None, num_workers=2)`` reads in workers. A batch
    is a pair of inputs and a dict of targets by task, as from a `TableDataset`.

    With ``shuffle`` the row groups are read in random order, four at a time, into a window, and batches are
    random rows of the window. Each epoch has another order from torch's random numbers, like that of a
    shuffling `torch.utils.data.DataLoader`, so that a seeded run has one order and resumes in it.

    Several processes, and workers within them, share the rows: each reads a part of its own, the same in
    every epoch, and nothing is read twice. With ``shuffle``, all processes get the same number of rows, and
    the remainder, fewer rows than processes, is left out; without, no row is.

    Args:
        files: ``.parquet`` files, a folder of them, or a list.
        columns: The inputs: a `TableColumns`, or a `TableInputs` of your own.
        targets: The column of each task, or a `TableTargets`; None for prediction only.
        batch_size: Rows in a batch; the last one may have fewer.
        shuffle: Whether the order is random.
        window: Rows that are shuffled together and held in memory.
        train: Whether ``columns`` and ``targets`` learn from these files, which reads them once before
            training. Every task must then have labels, without gaps between its classes.
        missing: Strings, in addition to the empty one, that stand for a missing value.

    Raises:
        UserError: If a file is no complete Parquet file, or lacks a column; if a size is below 1; and as
            `TableDataset` does for the values of a column.

    Example:
        >>> import tempfile
        >>> import pyarrow.parquet as pq
        >>> from polytask.data import TableColumns
        >>> columns = TableColumns(["x"])
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     pq.write_table(pa.table({"x": range(10), "y": [0, 1] * 5}), Path(folder, "0.parquet"))
        ...     stream = TableStream(folder, columns, {"odd": "y"}, batch_size=4, train=True)
        ...     [targets["odd"].tolist() for inputs, targets in stream]
        [[0, 1, 0, 1], [0, 1, 0, 1], [0, 1]]
    """

    def __init__(
        self,
        files: str | Path | Sequence[str | Path],
        columns: TableInputs,
        targets: TableTargets | Mapping[str, str] | None = None,
        *,
        batch_size: int = 32,
        shuffle: bool = False,
        window: int = 2**18,
        train: bool = False,
        missing: Sequence[str] = (),
    ) -> None:
        self.columns = check_inputs(columns)
        self.labels = targets_of(targets)
        self.batch_size = check_integer(batch_size, "TableStream.batch_size", 1)
        self.window = check_integer(window, "TableStream.window", 1)
        self.shuffle = shuffle
        self.missing = ["", *missing]
        needed = (*columns.names, *(self.labels.names if self.labels else ()))
        self._needed = list(dict.fromkeys(needed))
        paths = table_files(files)
        found = [_row_groups(path, self._needed) for path in paths]
        self._groups = [piece for pieces, _ in found for piece in pieces]
        # A file's own types are not the table's: integers in one may be floats in another.
        self._schema = common_schema(paths, [schema for _, schema in found])
        self.rows = sum(piece.end - piece.begin for piece in self._groups)
        if not self.rows:
            raise UserError("files", "must have at least one row", "none")
        self._learned_here: int | None = None
        self._reported: int | None = None
        self._inferred: dict[str, TaskType] = {}
        if train:
            types = self.labels.learn(self._tables(list(self.labels.names))) if self.labels else {}
            columns.learn(self._tables(list(columns.names)))
            columns.learn_target_types(types)
            self._learned_here = columns.revision

    def __len__(self) -> int:
        """Batches of this process in an epoch."""
        first, last = self._own_rows()
        return math.ceil((last - first) / self.batch_size)

    def __iter__(self) -> Iterator[TableBatch]:
        # Here and not with the first batch: a resumed run restores the random state from before.
        generator = torch.Generator().manual_seed(int(torch.empty((), dtype=torch.int64).random_()))
        types = self._target_types()
        return self._batches(_cut(self._groups, *self._worker_rows()), generator, types)

    def ordered(self, whole: bool) -> "TableStream":
        """A stream of the same rows in order.

        Args:
            whole: Not used: a stream leaves no row out.
        """
        ordered = copy.copy(self)
        ordered.shuffle = False
        return ordered

    def positions(self) -> Iterator[range]:
        """The rows of each batch of this process in an epoch that is not shuffled, by one worker."""
        first, last = self._own_rows()
        size = self.batch_size
        return (range(begin, min(begin + size, last)) for begin in range(first, last, size))

    def __getstate__(self) -> dict[str, Any]:
        # A spawned worker does not know the rank of its process.
        return {**self.__dict__, "_process": _process(self)}

    # ---- who reads what -----------------------------------------------------------------------

    def _own_rows(self) -> tuple[int, int]:
        rank, processes = _process(self)
        if self.shuffle:
            each = self.rows // processes
            return rank * each, (rank + 1) * each
        return self.rows * rank // processes, self.rows * (rank + 1) // processes

    def _worker_rows(self) -> tuple[int, int]:
        """The rows of this worker: whole batches, so that their number is that of one reader."""
        first, last = self._own_rows()
        worker = get_worker_info()
        if worker is None:
            return first, last
        begin, end = (len(self) * i // worker.num_workers for i in (worker.id, worker.id + 1))
        return min(first + begin * self.batch_size, last), min(first + end * self.batch_size, last)

    # ---- reading ------------------------------------------------------------------------------

    def _target_types(self) -> dict[str, TaskType]:
        """The types that the training rows had; else those of all rows here, not of one window."""
        if self.labels is None:
            return {}
        known = target_types(self.columns, self.labels)
        if self.labels.undecided(known) and not self._inferred:
            self._inferred = self.labels.infer(self._tables(list(self.labels.names)))
        return {**self._inferred, **known}

    def _batches(
        self, pieces: list[_Piece], generator: torch.Generator, types: Mapping[str, TaskType]
    ) -> Iterator[TableBatch]:
        for inputs, targets, count in self._windows(pieces, generator, types):
            order = torch.randperm(count, generator=generator) if self.shuffle else torch.arange(count)
            for begin in range(0, count, self.batch_size):
                rows = order[begin : begin + self.batch_size]
                yield _taken(inputs, rows), _taken(targets, rows)

    def _windows(
        self, pieces: list[_Piece], generator: torch.Generator, types: Mapping[str, TaskType]
    ) -> Iterator[tuple[Inputs, dict[str, Tensor], int]]:
        """Whole batches of rows, about ``window`` of them at a time, then the rest."""
        held: list[pa.Table] = []
        count = 0
        revision = self.columns.revision
        unseen = UnseenValues(self.columns) if revision not in (self._learned_here, self._reported) else None
        for table in self._chunks(pieces, generator):
            held.append(table)
            count += len(table)
            if count >= max(self.window, self.batch_size):
                full = count - count % self.batch_size
                joined = pa.concat_tables(held)
                yield *self._encoded(joined.slice(0, full), types, unseen), full
                held, count = [joined.slice(full)], count - full
        if count:
            yield *self._encoded(pa.concat_tables(held), types, unseen), count
        if unseen is not None:
            # Another process or worker may have rows whose categories are known.
            unseen.report(whole=sum(piece.end - piece.begin for piece in pieces) == self.rows)
            self._reported = revision

    def _encoded(
        self, table: pa.Table, types: Mapping[str, TaskType], unseen: UnseenValues | None
    ) -> TableBatch:
        table = cleaned(table, self.missing)
        inputs = self.columns.encode(table)
        if unseen is not None:
            unseen.add(table, inputs)
        return inputs, self.labels.encode(table, types) if self.labels else {}

    def _chunks(self, pieces: list[_Piece], generator: torch.Generator) -> Iterator[pa.Table]:
        """The pieces' rows: in order, or in chunks from several random pieces in turn."""
        if not self.shuffle:
            for piece in pieces:
                yield from self._read(piece, self._needed, min(self.window, _CHUNK))
            return
        size = max(1, min(self.window // _OPEN, _CHUNK))
        waiting = iter([pieces[i] for i in torch.randperm(len(pieces), generator=generator)])
        readers = [self._read(piece, self._needed, size) for piece in itertools.islice(waiting, _OPEN)]
        while readers:
            turn = int(torch.randint(len(readers), (), generator=generator))
            table = next(readers[turn], None)
            if table is not None:
                yield table
            elif (following := next(waiting, None)) is not None:
                readers[turn] = self._read(following, self._needed, size)
            else:
                del readers[turn]

    def _tables(self, columns: Sequence[str]) -> Iterator[pa.Table]:
        for piece in self._groups:
            for table in self._read(piece, columns, _CHUNK):
                yield cleaned(table, self.missing)

    def _read(self, piece: _Piece, columns: Sequence[str], size: int) -> Iterator[pa.Table]:
        schema = pa.schema([self._schema.field(name) for name in columns])
        for table in _read(piece, columns, size):
            # Types only widen; integers as floats lose nothing but digits beyond 2 ** 53.
            yield table.select(columns).cast(schema, safe=False)


def _row_groups(path: Path, columns: Sequence[str]) -> tuple[list[_Piece], pa.Schema]:
    if not is_parquet(path):
        raise UserError(str(path), "must be a Parquet file", path.suffix, "Use a TableDataset")
    with open_parquet(path, columns) as file:
        groups = [file.metadata.row_group(i).num_rows for i in range(file.metadata.num_row_groups)]
        schema = pa.schema([file.schema_arrow.field(name) for name in columns])
    return [_Piece(path, i, 0, rows) for i, rows in enumerate(groups) if rows], schema


def _cut(groups: Sequence[_Piece], first: int, last: int) -> list[_Piece]:
    """The pieces between two rows of all rows."""
    pieces, start = [], 0
    for group in groups:
        begin, end = max(first - start, 0), min(last - start, group.end)
        if begin < end:
            pieces.append(_Piece(group.path, group.group, begin, end))
        start += group.end
    return pieces


def _read(piece: _Piece, columns: Sequence[str], size: int) -> Iterator[pa.Table]:
    """A piece's rows, in tables of at most ``size`` rows."""
    with open_parquet(piece.path, columns) as file, whole(piece.path):
        start = 0
        for batch in file.iter_batches(size, row_groups=[piece.group], columns=list(columns)):
            begin, end = max(piece.begin - start, 0), min(piece.end - start, len(batch))
            if begin < end:
                yield pa.Table.from_batches([batch.slice(begin, end - begin)])
            start += len(batch)
            if start >= piece.end:
                return


def _taken(inputs: Any, rows: Tensor) -> Any:
    if isinstance(inputs, Mapping):
        return {name: _taken(part, rows) for name, part in inputs.items()}
    # Several times as fast as indexing with brackets.
    return inputs.index_select(0, rows)


def _process(stream: TableStream) -> tuple[int, int]:
    """This process's number and how many there are."""
    found = ranks()
    known: tuple[int, int] = found if found[1] > 1 else stream.__dict__.get("_process", found)
    return known
