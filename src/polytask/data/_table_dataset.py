"""A table in memory, with inputs and targets by task."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import torch
from torch import Tensor
from torch.utils.data import Dataset

from polytask._errors import UserError
from polytask.data._table_files import CSVFormat, read_table, table_files
from polytask.data._table_inputs import TableInputs
from polytask.data._table_targets import TableTargets

Inputs = Tensor | Mapping[str, Tensor]


class TableDataset(Dataset[tuple[Inputs, dict[str, Tensor]]]):
    """A table from CSV or Parquet files in memory, with inputs and targets by task.

    A row is a pair: what ``columns`` makes of it, and a dict of targets by task. An index may also be a list
    of rows, which gives a batch at once: ``DataLoader(data, sampler=BatchSampler(...), batch_size=None)``
    is many times as fast as collating single rows. For files that are larger than memory see `TableStream`.

    Args:
        files: A ``.csv``, ``.csv.gz`` or ``.parquet`` file, a folder of one kind, or a list of them.
        columns: What the inputs are made of: a `TableColumns`, or a `TableInputs` of your own. Data sets of
            one run share one object.
        targets: The column of each task, or a `TableTargets`; none where it is only predicted.
        part: The share of the rows from one number to another, both in [0, 1], after a shuffle by ``seed``;
            None takes all rows, in order.
        seed: Decides which rows these are.
        train: Whether ``columns`` learns from these rows. Every task then needs labels, without gaps between
            its classes.
        names: The columns of CSV files that have no line with their names.
        delimiter: What stands between two cells of a CSV file.
        missing: Texts, besides empty ones, that stand for a missing value.

    Raises:
        UserError: Where a file cannot be read, a row has too few or too many cells, a column is not there, a
            text is no number or no category, or a task has no label; where rows are read before anything was
            learnt.

    Example:
        >>> import tempfile
        >>> from polytask.data import TableColumns
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     file = Path(folder, "houses.csv")
        ...     _ = file.write_text("rooms,price,sold\\n3,1.5,1\\n5,2.5,0\\n4,,1\\n")
        ...     columns = TableColumns(["rooms"])
        ...     houses = TableDataset(file, columns, {"price": "price", "sold": "sold"}, train=True)
        >>> houses[[0, 2]][1]
        {'price': tensor([1.5000,    nan]), 'sold': tensor([1, 1])}
    """

    def __init__(
        self,
        files: str | Path | Sequence[str | Path],
        columns: TableInputs,
        targets: TableTargets | Mapping[str, str] | None = None,
        *,
        part: Sequence[float] | None = None,
        seed: int = 0,
        train: bool = False,
        names: Sequence[str] | None = None,
        delimiter: str = ",",
        missing: Sequence[str] = (),
    ) -> None:
        self.columns = check_inputs(columns)
        labels = targets_of(targets)
        needed = [*columns.names, *(labels.names if labels else ())]
        table = read_table(table_files(files), needed, CSVFormat(names, delimiter), ["", *missing])
        if part is not None:
            table = table.take(_rows(len(table), part, seed))
        self.targets = labels.encode(table) if labels else {}
        if train and labels:
            labels.check([table])
        if train:
            columns.learn([table])
        self._table: pa.Table = table.select(list(dict.fromkeys(columns.names)))
        self._encoded: tuple[int, Inputs] | None = None

    @property
    def inputs(self) -> Inputs:
        """All inputs, encoded when they are first asked for: a checkpoint may be loaded until then."""
        if self._encoded is None or self._encoded[0] != self.columns.revision:
            self._encoded = (self.columns.revision, self.columns.encode(self._table))
        return self._encoded[1]

    def __len__(self) -> int:
        return len(self._table)

    def __getitem__(self, index: int | Sequence[int] | Tensor) -> tuple[Inputs, dict[str, Tensor]]:
        inputs = self.inputs
        rows = torch.as_tensor(index) if not isinstance(index, int) else index
        if isinstance(inputs, Mapping):
            return {name: part[rows] for name, part in inputs.items()}, self._targets(rows)
        return inputs[rows], self._targets(rows)

    def _targets(self, rows: Any) -> dict[str, Tensor]:
        return {task: target[rows] for task, target in self.targets.items()}


def check_inputs(columns: Any) -> TableInputs:
    """The columns, once they are some."""
    if not isinstance(columns, TableInputs):
        found = type(columns).__name__
        raise UserError("columns", "is a polytask.data.TableColumns, or another TableInputs", found)
    return columns


def targets_of(targets: TableTargets | Mapping[str, str] | None) -> TableTargets | None:
    """The targets of a table, however they are given."""
    if isinstance(targets, TableTargets):
        return targets
    return TableTargets(targets) if targets else None


def _rows(count: int, part: Sequence[float], seed: int) -> Any:
    if len(part) != 2 or not 0 <= part[0] < part[1] <= 1:
        raise UserError("part", "is two rising numbers in [0, 1]", repr(part), "Write for example [0, 0.8]")
    order = torch.randperm(count, generator=torch.Generator().manual_seed(seed))
    chosen = order[round(part[0] * count) : round(part[1] * count)]
    if not len(chosen):
        raise UserError("part", f"holds a row at least of {count}", repr(part))
    return chosen.numpy()
