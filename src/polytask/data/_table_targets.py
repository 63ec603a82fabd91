"""Columns as targets: classes and numbers by task, missing where a cell is empty."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import torch
from torch import Tensor

from polytask._errors import UserError, hint
from polytask._tasks import check_known, check_task_names
from polytask.batch import IGNORE_INDEX
from polytask.data._table_values import Numbers, as_numbers, as_text, is_text

TaskType = Literal["regression", "classification"]
_TYPES = ("regression", "classification")


class TableTargets:
    """Columns as targets by task; a label is missing where a cell is empty.

    Classes are int64, -100 where missing; numbers are float32, NaN where missing. Unless ``task_types`` says
    what a column is, whole numbers and truth values are classes, and other numbers are numbers. In a CSV file
    that is told from what is written: ``1`` is whole, ``1.0`` is not.

    Args:
        columns: The column of each task.
        classes: For columns of text the classes, in order; or one text, which is class 1 and all others
            class 0. For columns of numbers how many classes there are, where not each has a row.
        task_types: ``regression`` or ``classification``, for tasks of which it would be told wrongly.

    Raises:
        UserError: Where a task, a type or the classes cannot be used.

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
                raise UserError(f"task_types.{task}", "is no type of task", repr(kind), hint(kind, _TYPES))
        for task, known in self.classes.items():
            _check_known_classes(task, known)

    @property
    def names(self) -> tuple[str, ...]:
        """The columns that are needed."""
        return tuple(self.columns.values())

    def encode(self, table: pa.Table) -> dict[str, Tensor]:
        """Targets by task.

        Args:
            table: The columns, texts trimmed, null where a value is missing.

        Raises:
            UserError: Where a text or a number is no class, or texts have none.
        """
        return {task: self._target(task, table[name]) for task, name in self.columns.items()}

    def check(self, tables: Iterable[pa.Table]) -> None:
        """Raise where a task has no label to learn from, or classes have gaps.

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
                raise UserError(where, "needs a label", f"none in column '{self.columns[task]}'")
            if task not in self.classes:
                _check_gaps(task, found)

    def _target(self, task: str, column: Any) -> Tensor:
        known = self.classes.get(task)
        if known is not None and not isinstance(known, int):
            return _indexed(task, column, known)
        kind = self.task_types.get(task)
        if kind is None:
            kind = "classification" if known or _is_whole(task, column) else "regression"
        numbers = as_numbers(column, self.columns[task])
        if kind == "regression":
            return torch.from_numpy(numbers.astype(np.float32))
        return _classes(task, numbers, known)

    def __repr__(self) -> str:
        return f"TableTargets({self.columns!r}, {self.classes!r}, {self.task_types!r})"


def _check_known_classes(task: str, known: int | Sequence[str]) -> None:
    if isinstance(known, str) or (isinstance(known, int) and known > 0 and known is not True):
        return
    texts = list(known) if isinstance(known, Sequence) else []
    if not texts or not all(isinstance(text, str) for text in texts) or len(set(texts)) < len(texts):
        raise UserError(
            f"classes.{task}",
            "are texts, each of them once; one text; or their number",
            repr(known),
            "Quote numbers and truth values that stand for texts",
        )


def _indexed(task: str, column: Any, classes: Sequence[str]) -> Tensor:
    texts = as_text(column)
    if isinstance(classes, str):
        numbers = pc.equal(texts, classes).cast(pa.int64())
    else:
        numbers = pc.index_in(texts, value_set=pa.array(list(classes), pa.string())).cast(pa.int64())
        unknown = pc.and_(pc.is_null(numbers), pc.is_valid(texts))
        if pc.any(unknown).as_py():
            text = pc.filter(texts, unknown)[0].as_py()
            raise UserError(
                f"task '{task}'", f"no class is called '{text}'", None, hint(text, classes, "Classes")
            )
    return torch.tensor(np.asarray(pc.fill_null(numbers, IGNORE_INDEX)))


def _is_whole(task: str, column: Any) -> bool:
    """Whether a column holds whole numbers or truth values and nothing else."""
    if not is_text(column.type):
        return bool(pa.types.is_integer(column.type) or pa.types.is_boolean(column.type))
    for kind in (pa.int64(), pa.float64()):
        try:
            pc.cast(column, kind)
        except pa.ArrowInvalid:
            continue
        return bool(kind == pa.int64())
    text = next(value for value in column.drop_null().to_pylist())
    rule = "targets are numbers, or texts whose classes are named"
    raise UserError(f"task '{task}'", rule, repr(text), f"Write classes: {{{task}: [...]}}")


def _classes(task: str, numbers: Numbers, count: int | None) -> Tensor:
    known = np.where(np.isfinite(numbers), numbers, IGNORE_INDEX)
    labels = known.astype(np.int64)
    bad = (labels != known) | ((labels < 0) & (labels != IGNORE_INDEX)) | np.isinf(numbers)
    if bad.any():
        rule = "class labels are whole numbers from 0 on"
        raise UserError(f"task '{task}'", rule, f"{numbers[bad][0]:g}", _fix(task, ""))
    if count is not None and labels.max(initial=0) >= count:
        found = f"class {labels.max()}"
        raise UserError(f"task '{task}'", f"has {count} classes, 0 to {count - 1}", found)
    return torch.from_numpy(labels)


def _fix(task: str, otherwise: str) -> str:
    return f"{otherwise}Write task_types: {{{task}: regression}} if these are numbers"


def _check_gaps(task: str, classes: Sequence[int]) -> None:
    if classes and len(classes) <= classes[-1]:
        gap = next(i for i in range(classes[-1]) if i not in classes)
        raise UserError(
            f"task '{task}'",
            "class labels have no gaps",
            f"labels up to {classes[-1]} without {gap}",
            _fix(task, f"Number them anew, or write classes: {{{task}: {classes[-1] + 1}}}. "),
        )
