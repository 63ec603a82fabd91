"""A table in memory, with inputs and targets by task."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import torch
from torch import Tensor

from polytask._checks import check_integer, is_finite
from polytask._errors import UserError
from polytask._tasks import TaskType
from polytask.batch import IGNORE_INDEX
from polytask.data._array_dataset import ArrayDataset, Sample
from polytask.data._table_files import CSVFormat, read_table, table_files
from polytask.data._table_inputs import TableInputs
from polytask.data._table_targets import TableTargets
from polytask.data._unseen import UnseenValues

Inputs = Tensor | Mapping[str, Tensor]


class TableDataset(ArrayDataset):
    """A table from CSV or Parquet files in memory, with inputs and targets by task.

    A row is a pair: what ``columns`` makes of it, and a dict of targets by task. The data set is an
    `ArrayDataset`, so that an `ArrayLoader` takes whole batches from it. `TableStream` is for files that are
    larger than memory.

    Args:
        files: A ``.parquet`` file, any other as CSV (gzipped, if it ends in ``.gz``), a folder of
            ``.parquet`` or of ``.csv`` and ``.csv.gz`` files, or a list of them.
        columns: The inputs: a `TableColumns`, or a `TableInputs` of your own. The data sets of a run share
            one object, which also knows from the training rows which tasks have classes.
        targets: The column of each task, or a `TableTargets`; None for prediction only.
        part: The share of the rows from one number to another, both in [0, 1], after a shuffle by ``seed``;
            None takes all rows, in order.
        seed: Seed of that shuffle.
        train: Whether ``columns`` and ``targets`` learn from these rows. Every task must then have labels,
            without gaps between its classes.
        names: The columns of CSV files without a header line.
        delimiter: The character between two cells of a CSV file.
        missing: Strings, in addition to the empty one, that stand for a missing value.

    Raises:
        UserError: If a file cannot be read, a row has too few or too many cells, a column does not exist, a
            string is no number or no class, or a task has no label; if rows are read before anything was
            learned, or no category of a column was in the training data.

    Warns:
        UserWarning: If some categories of a column were not in the training data, with their number.

    Example:
        >>> import tempfile
        >>> from polytask.data import TableColumns
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     file = Path(folder, "houses.csv")
        ...     _ = file.write_text("rooms,price,sold\\n3,1.5,1\\n5,2.5,0\\n4,,1\\n")
        ...     columns = TableColumns(["rooms"])
        ...     houses = TableDataset(file, columns, {"price": "price", "sold": "sold"}, train=True)
        >>> houses.take(torch.tensor([0, 2]))[1]
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
        seed = check_integer(seed, "seed")
        self.columns = check_inputs(columns)
        labels = targets_of(targets)
        needed = [*columns.names, *(labels.names if labels else ())]
        table = read_table(table_files(files), needed, CSVFormat(names, delimiter), ["", *missing])
        if part is not None:
            table = table.take(_rows(len(table), part, seed))
        self.classes = labels.classes if labels else {}
        self.ignore_index = IGNORE_INDEX
        types = labels.learn([table]) if train and labels else {}
        if train:
            columns.learn([table])
            columns.learn_target_types(types)
        self._labels = labels
        self._table: pa.Table = table.select(list(dict.fromkeys(needed)))
        self._learned_here = columns.revision if train else None
        self.inputs: dict[str, Tensor] = {}
        self.single = False
        self._revision: int | None = None
        self._targets: dict[str, Tensor] | None = None
        self._targets_revision: int | None = None
        if labels and not labels.undecided(target_types(columns, labels)):
            # What is no class is found here, before the training.
            _ = self.targets

    @property
    def targets(self) -> dict[str, Tensor]:  # type: ignore[override]
        """The targets by task, of the types that the training rows had; encoded on first use."""
        if self._targets is None or self._targets_revision != self.columns.revision:
            labels = self._labels
            types = target_types(self.columns, labels) if labels else {}
            self._targets = labels.encode(self._table, types) if labels else {}
            self._targets_revision = self.columns.revision
        return self._targets

    def take(self, rows: Tensor) -> Sample:
        """A batch, with one gather for each column of the model's inputs.

        The table is encoded on first use: until then a checkpoint may be loaded.

        Args:
            rows: Indices of rows, 0 or more, ``(rows,)``.

        Returns:
            The inputs, and the targets by task, ``(rows, ...)`` each.
        """
        if self._revision != self.columns.revision:
            inputs = self.columns.encode(self._table)
            if self.columns.revision != self._learned_here:
                unseen = UnseenValues(self.columns)
                unseen.add(self._table, inputs)
                unseen.report(whole=True)
            self.single = isinstance(inputs, Tensor)
            self.inputs = {"": inputs} if isinstance(inputs, Tensor) else dict(inputs)
            self._revision = self.columns.revision
        return super().take(rows)

    def __reduce__(self) -> tuple[Any, ...]:
        # Not read again: the file may have changed by then.
        return _restored, (type(self), self.__dict__)

    def __len__(self) -> int:
        return len(self._table)

    def __repr__(self) -> str:
        tasks = list(self._labels.tasks) if self._labels else []
        return f"TableDataset(rows={len(self)}, columns={self.columns!r}, tasks={tasks})"


def _restored(kind: type[TableDataset], state: dict[str, Any]) -> TableDataset:
    made = kind.__new__(kind)
    made.__dict__.update(state)
    return made


def check_inputs(columns: Any) -> TableInputs:
    """The columns, if they are a `TableInputs`."""
    if not isinstance(columns, TableInputs):
        found = type(columns).__name__
        raise UserError("columns", "must be a polytask.data.TableColumns, or another TableInputs", found)
    return columns


def targets_of(targets: TableTargets | Mapping[str, str] | None) -> TableTargets | None:
    """The targets of a table, however they are given."""
    if isinstance(targets, TableTargets):
        return targets
    return TableTargets(targets) if targets else None


def target_types(columns: TableInputs, labels: TableTargets) -> dict[str, TaskType]:
    """What the training rows tell of the types of targets, by task.

    Args:
        columns: The inputs; what they learned counts first, since a checkpoint contains it.
        labels: The targets.
    """
    found = {task: columns.target_type(task) for task in labels.tasks}
    return {**labels.learned, **{task: kind for task, kind in found.items() if kind is not None}}


def _rows(count: int, part: Sequence[float], seed: int) -> Any:
    numbers = len(part) == 2 and all(map(is_finite, part))
    if not numbers or not 0 <= part[0] < part[1] <= 1:
        raise UserError(
            "part", "must be two rising numbers from 0 to 1", repr(part), "Write for example [0, 0.8]"
        )
    order = torch.randperm(count, generator=torch.Generator().manual_seed(seed))
    chosen = order[round(part[0] * count) : round(part[1] * count)]
    if not len(chosen):
        raise UserError("part", f"must contain at least one of {count} rows", repr(part))
    return chosen.numpy()
