"""Columns as targets: classes and values by task, missing if a cell is empty."""

from collections.abc import Container, Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import torch
from torch import Tensor

from polytask._errors import UserError, hint
from polytask._tasks import TASK_TYPES, TaskType, check_known, check_task_names
from polytask.batch import (
    IGNORE_INDEX,
    are_labels,
    check_classes,
    check_labels,
    check_no_gaps,
    unknown_class,
    whole_labels,
)
from polytask.data._table_values import Numbers, as_numbers, distinct, holds_booleans, is_text
from polytask.data._text_forms import by_text


class TableTargets:
    """Columns as targets by task; a label is missing if its cell is empty.

    Classes are int64, -100 if missing; values are float32, NaN if missing. Unless ``task_types`` sets the
    type of a task, integers and booleans are classes, and other numbers are values. In a CSV file ``1`` is an
    integer and ``1.0`` is not.

    The training rows decide: a data set with ``train=True`` learns the types, and every other one with the
    same `TableTargets` or the same `TableColumns` uses them, whatever its own rows look like. A checkpoint of
    a model with `TableColumns` contains them. Only where nothing was learned are they inferred from the rows
    themselves.

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
        >>> targets.learn([pa.table({"income": ["high", "low"], "mm": [0.5, 1.0]})])
        {'rain': 'regression'}
        >>> targets.encode(pa.table({"income": ["high"], "mm": [2]}))["rain"]
        tensor([2.])
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
        self._learned: dict[str, TaskType] = {}
        check_known(self.classes, self.tasks, "classes")
        check_known(self.task_types, self.tasks, "task_types")
        for task, kind in self.task_types.items():
            if kind not in TASK_TYPES:
                raise UserError(
                    f"task_types.{task}",
                    f"must be one of {', '.join(TASK_TYPES)}",
                    repr(kind),
                    hint(str(kind), TASK_TYPES),
                )
        for task, known in self.classes.items():
            _check_known_classes(task, known)

    @property
    def names(self) -> tuple[str, ...]:
        """The columns that are needed."""
        return tuple(self.columns.values())

    @property
    def learned(self) -> dict[str, TaskType]:
        """The types that `learn` found, by task."""
        return dict(self._learned)

    def encode(self, table: pa.Table, learned: Mapping[str, TaskType] | None = None) -> dict[str, Tensor]:
        """Targets by task.

        Args:
            table: The columns, strings trimmed, null if a value is missing.
            learned: The types that are known from the training rows; from `learn` if None.

        Raises:
            UserError: If a string or a number is no class, or strings have no classes.
        """
        types = {**(self._learned if learned is None else learned), **self.task_types}
        return {task: self._target(task, table[name], types.get(task)) for task, name in self.columns.items()}

    def undecided(self, learned: Mapping[str, TaskType] | None = None) -> list[str]:
        """The tasks whose type neither an argument nor the training rows tell.

        Args:
            learned: The types that are known from the training rows; from `learn` if None.
        """
        known = {*(self._learned if learned is None else learned), *self.task_types, *self.classes}
        return [task for task in self.tasks if task not in known]

    def infer(self, tables: Iterable[pa.Table]) -> dict[str, TaskType]:
        """The types of the tasks that no argument tells, from all rows of a table.

        Args:
            tables: The parts of the table, one after the other.

        Raises:
            UserError: If strings have no classes.
        """
        tasks = self.undecided({})
        values: set[str] = set()
        for table in tables:
            values.update(task for task in tasks if not self._holds_labels(task, table))
        return _types(tasks, values)

    def learn(self, tables: Iterable[pa.Table]) -> dict[str, TaskType]:
        """Learn from the training table which tasks have classes and which have values.

        Args:
            tables: Its parts, one after the other.

        Returns:
            The type of each task that no argument tells.

        Raises:
            UserError: If a task has no label to learn from, or classes have gaps.
        """
        tasks = self.undecided({})
        values = {task for task, kind in self.task_types.items() if kind == "regression"}
        seen: dict[str, set[float]] = {task: set() for task in self.tasks}
        for table in tables:
            values.update(task for task in tasks if not self._holds_labels(task, table))
            for task in self.tasks:
                labels = self._labels(task, table)
                # Of values one is enough; of classes it may turn out only later that they are values.
                seen[task].update((labels[:1] if task in values else np.unique(labels)).tolist())
        for task, found in seen.items():
            self._check_labels(task, found, task in values)
        self._learned = _types(tasks, values)
        return dict(self._learned)

    def _holds_labels(self, task: str, table: pa.Table) -> bool:
        return _holds_labels(task, table[self.columns[task]], self.columns[task])

    def _labels(self, task: str, table: pa.Table) -> Numbers:
        known, name = self.classes.get(task), self.columns[task]
        if isinstance(known, Sequence):
            indices = _indexed(task, table[name], name, known)
            numbers: Numbers = indices[indices != IGNORE_INDEX].double().numpy()
            return numbers
        numbers = as_numbers(table[name], name)
        return numbers[~np.isnan(numbers)]

    def _check_labels(self, task: str, seen: set[float], values: bool) -> None:
        known, where = self.classes.get(task), f"task '{task}'"
        found = sorted(seen)
        if not values and not isinstance(known, Sequence):
            labels = _classes(task, np.array(found, np.float64), known).tolist()
            found = [label for label in labels if label != IGNORE_INDEX]
        if not found:
            raise UserError(where, "requires a label", f"none in column '{self.columns[task]}'")
        if not values and known is None:
            count = int(found[-1]) + 1
            fix = f"Renumber them, or write classes: {{{task}: {count}}}. {_values_fix(task)}"
            check_no_gaps(map(int, found), where, fix)

    def _target(self, task: str, column: Any, kind: TaskType | None) -> Tensor:
        known, name = self.classes.get(task), self.columns[task]
        if isinstance(known, Sequence):
            return _indexed(task, column, name, known)
        if kind is None:
            kind = "classification" if known or _holds_labels(task, column, name) else "regression"
        numbers = as_numbers(column, name)
        if kind == "regression":
            return torch.from_numpy(numbers.astype(np.float32))
        return _classes(task, numbers, known)

    def __repr__(self) -> str:
        return f"TableTargets({self.columns!r}, {self.classes!r}, {self.task_types!r})"


def _types(tasks: Iterable[str], values: Container[str]) -> dict[str, TaskType]:
    return {task: "regression" if task in values else "classification" for task in tasks}


def _check_known_classes(task: str, known: int | Sequence[str]) -> None:
    where, fix = f"classes.{task}", "Quote numbers and booleans that stand for strings"
    if isinstance(known, str):
        return
    check_classes(known, where, fix)
    if isinstance(known, Sequence) and not all(isinstance(name, str) for name in known):
        raise UserError(where, "must be strings, one string, or the number of classes", repr(known), fix)


def _indexed(task: str, column: Any, name: str, classes: Sequence[str]) -> Tensor:
    texts, rows = distinct(column, name)
    if isinstance(classes, str):
        indices = [index or 0 for index in by_text([(classes, 1)], texts)]
    else:
        indices = []
        for text, index in zip(
            texts, by_text(zip(classes, range(len(classes)), strict=True), texts), strict=True
        ):
            if index is None:
                raise unknown_class(text, classes, f"task '{task}'")
            indices.append(index)
    return torch.from_numpy(np.array([*indices, IGNORE_INDEX], np.int64)[rows])


def _holds_labels(task: str, column: Any, name: str) -> bool:
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
    if holds_booleans(column, name):
        return True
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
