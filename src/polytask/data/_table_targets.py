"""Columns as targets: classes and values by task, missing if a cell is empty."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import torch
from torch import Tensor

from polytask._errors import UserError, hint
from polytask._tasks import check_known, check_task_names
from polytask.batch import (
    IGNORE_INDEX,
    are_labels,
    check_classes,
    check_labels,
    check_no_gaps,
    unknown_class,
    whole_labels,
)
from polytask.data._table_values import Numbers, as_numbers, as_text, is_text

TaskType = Literal["regression", "classification"]
_TYPES = ("regression", "classification")


class TableTargets:
    """Columns as targets by task; a label is missing if its cell is empty.

    Classes are int64, -100 if missing; values are float32, NaN if missing. Unless ``task_types`` sets the
    type of a task, integers and booleans are classes, and other numbers are values. In a CSV file ``1`` is an
    integer and ``1.0`` is not.

    Args:
        columns: The column of each task.
        classes: For columns of strings the classes, in order; or one string, which is class 1 while all
            others are class 0. For columns of numbers the number of classes, if not each of them has a row.
        task_types: ``regression`` or ``classification``, for tasks whose columns suggest the other type.

    Raises:
        UserError: If a task, a type or the classes are invalid.

    Example:
        >>> targets = TableTargets({"income": "income", "rain": "mm"}, {"income": ["low", "high"]})
        >>> targets.encode(pa.table({"income": ["high", None], "mm": [0.5, None]}))
        {'income': tensor([   1, -100]), 'rain': tensor([0.5000,    nan])}
    """

    def __init__(
        self,
        columns: Mapping[str, str],
        classes: Mapping[str, int | Sequence[str]] | None = None,
        task_types: Mapping[str, TaskType] | None = None,
    ) -> None:
        self.tasks = check_task_names(columns, "targets")
        self.columns = dict(columns)
        self.classes = dict(classes or {})
        self.task_types = dict(task_types or {})
        check_known(self.classes, self.tasks, "classes")
        check_known(self.task_types, self.tasks, "task_types")
        for task, kind in self.task_types.items():
            if kind not in _TYPES:
                raise UserError(
                    f"task_types.{task}",
                    f"must be one of {', '.join(_TYPES)}",
                    repr(kind),
                    hint(str(kind), _TYPES),
                )
        for task, known in self.classes.items():
            _check_known_classes(task, known)

    @property
    def names(self) -> tuple[str, ...]:
        """The columns that are needed."""
        return tuple(self.columns.values())

    def encode(self, table: pa.Table) -> dict[str, Tensor]:
        """Targets by task.

        Args:
            table: The columns, strings trimmed, null if a value is missing.

        Raises:
            UserError: If a string or a number is no class, or strings have no classes.
        """
        return {task: self._target(task, table[name]) for task, name in self.columns.items()}

    def check(self, tables: Iterable[pa.Table]) -> None:
        """Raise if a task has no label to learn from, or classes have gaps.

        Args:
            tables: The parts of the training table, one after the other.
        """
        seen: dict[str, set[int]] = {task: set() for task in self.tasks}
        labelled: set[str] = set()
        for table in tables:
            for task, target in self.encode(table).items():
                if target.is_floating_point():
                    labelled |= {task} if not bool(target.isnan().all()) else set()
                else:
                    seen[task].update(torch.unique(target).tolist())
        for task in self.tasks:
            found = sorted(seen[task] - {IGNORE_INDEX})
            if not found and task not in labelled:
                where = f"task '{task}'"
                raise UserError(where, "requires a label", f"none in column '{self.columns[task]}'")
            if task not in self.classes:
                count = found[-1] + 1 if found else 0
                fix = f"Renumber them, or write classes: {{{task}: {count}}}. {_values_fix(task)}"
                check_no_gaps(found, f"task '{task}'", fix)

    def _target(self, task: str, column: Any) -> Tensor:
        known = self.classes.get(task)
        if isinstance(known, Sequence):
            return _indexed(task, column, known)
        kind = self.task_types.get(task)
        if kind is None:
            kind = "classification" if known or _holds_labels(task, column) else "regression"
        numbers = as_numbers(column, self.columns[task])
        if kind == "regression":
            return torch.from_numpy(numbers.astype(np.float32))
        return _classes(task, numbers, known)

    def __repr__(self) -> str:
        return f"TableTargets({self.columns!r}, {self.classes!r}, {self.task_types!r})"


def _check_known_classes(task: str, known: int | Sequence[str]) -> None:
    where, fix = f"classes.{task}", "Quote numbers and booleans that stand for strings"
    if isinstance(known, str):
        return
    check_classes(known, where, fix)
    if isinstance(known, Sequence) and not all(isinstance(name, str) for name in known):
        raise UserError(where, "must be strings, one string, or the number of classes", repr(known), fix)


def _indexed(task: str, column: Any, classes: Sequence[str]) -> Tensor:
    strings = as_text(column)
    if isinstance(classes, str):
        numbers = pc.equal(strings, classes).cast(pa.int64())
    else:
        numbers = pc.index_in(strings, value_set=pa.array(list(classes), pa.string())).cast(pa.int64())
        unknown = pc.and_(pc.is_null(numbers), pc.is_valid(strings))
        if pc.any(unknown).as_py():
            raise unknown_class(pc.filter(strings, unknown)[0].as_py(), classes, f"task '{task}'")
    return torch.tensor(np.asarray(pc.fill_null(numbers, IGNORE_INDEX)))


def _holds_labels(task: str, column: Any) -> bool:
    """Whether a column holds class labels unless a task type says otherwise."""
    if not is_text(column.type):
        integer, boolean = pa.types.is_integer(column.type), pa.types.is_boolean(column.type)
        return are_labels("i" if integer else "b" if boolean else "f")
    for kind in (pa.int64(), pa.float64()):
        try:
            pc.cast(column, kind)
        except pa.ArrowInvalid:
            continue
        return bool(kind == pa.int64())
    string = next(value for value in column.drop_null().to_pylist())
    rule = "targets must be numbers, or strings with named classes"
    raise UserError(f"task '{task}'", rule, repr(string), f"Write classes: {{{task}: [...]}}")


def _classes(task: str, numbers: Numbers, count: int | None) -> Tensor:
    where, fix = f"task '{task}'", _values_fix(task)
    labels = whole_labels(torch.tensor(numbers), where, fix=fix)
    check_labels(labels, where, count, fix=fix)
    return labels


def _values_fix(task: str) -> str:
    return f"Write task_types: {{{task}: regression}} if these are values"
