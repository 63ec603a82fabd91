"""The form in which targets are given, and predictions are returned."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from polytask._errors import UserError
from polytask._tasks import check_task_names
from polytask.data._missing_values import array_with_missing


class TargetForm:
    """Targets of several tasks as a dict, a data frame, a structured array, a matrix, or one task's vector.

    Args:
        targets: The targets.

    Attributes:
        names: The tasks: the names in the targets; ``y`` for a vector; ``y0``, ``y1``, ... for the columns
            of a matrix.

    Raises:
        UserError: If they are none of these.

    Example:
        >>> form = TargetForm(np.zeros((3, 2)))
        >>> form.names, form.columns(np.zeros((3, 2)), 3)["y1"].shape
        (('y0', 'y1'), (3,))
        >>> form.restored({"y0": np.zeros(2), "y1": np.ones(2)}).tolist()
        [[0.0, 1.0], [0.0, 1.0]]
    """

    def __init__(self, targets: Any) -> None:
        self._frame: type | None = None
        self._structured = False
        self._dimensions = 0
        if targets is None:
            raise UserError("y", "requires y to be passed, but the target y is None")
        names: Sequence[str]
        if isinstance(targets, Mapping):
            names = list(targets)
        elif hasattr(targets, "columns") and hasattr(targets, "__getitem__"):
            self._frame = type(targets)
            names = list(targets.columns)
        elif getattr(getattr(targets, "dtype", None), "names", None):
            self._structured = True
            names = list(targets.dtype.names)
        else:
            array = _array(targets)
            self._dimensions = array.ndim
            names = ["y"] if array.ndim == 1 else [f"y{index}" for index in range(array.shape[1])]
        self.names = check_task_names(names, "y")

    def columns(self, targets: Any, rows: int) -> dict[str, Any]:
        """Targets by task; of some of the tasks if they are named.

        Args:
            targets: Targets in this form, or in another that names the tasks.
            rows: The number of rows that each must have.

        Raises:
            UserError: If numbers of rows or of columns differ.
        """
        given = TargetForm(targets)
        if given._dimensions:
            array = _array(targets)
            if given.names != self.names:
                found = f"shape {array.shape}"
                raise UserError("y", f"must have a column for each of {', '.join(self.names)}", found)
            parts = [array] if array.ndim == 1 else list(array.T)
            columns: dict[str, Any] = dict(zip(self.names, parts, strict=True))
        else:
            columns = {name: targets[name] for name in given.names}
        for name, column in columns.items():
            if len(column) != rows:
                found = f"{len(column)} in targets of shape {np.shape(column)}"
                rule = f"must have a target for each of the {rows} rows of X"
                raise UserError(f"task '{name}'", rule, found)
        return columns

    def restored(self, columns: Mapping[str, NDArray[Any]]) -> Any:
        """Predictions in the form of the targets.

        Args:
            columns: Predictions by task.
        """
        if self._dimensions == 1:
            return columns["y"]
        if self._dimensions:
            kinds = {column.dtype.kind for column in columns.values()}
            mixed = len(kinds) > 1 and not kinds <= set("iuf")
            return np.stack(
                [column.astype(object) if mixed else column for column in columns.values()], axis=1
            )
        if self._frame is not None:
            return self._frame(dict(columns))
        if self._structured:
            kinds_of = [(name, column.dtype, column.shape[1:]) for name, column in columns.items()]
            rows = len(next(iter(columns.values())))
            structured = np.empty(rows, dtype=kinds_of)
            for name, column in columns.items():
                structured[name] = column
            return structured
        return dict(columns)

    def listed(self, values: Mapping[str, Any]) -> Any:
        """What is not one number for each row, such as probabilities: scikit-learn's lists for a matrix.

        Args:
            values: Values by task.
        """
        if self._dimensions == 1:
            return values.get("y")
        return [values.get(name) for name in self.names] if self._dimensions else dict(values)


def _array(targets: Any) -> NDArray[Any]:
    array = array_with_missing(targets)
    if array.ndim not in (1, 2) or array.dtype.names or not hasattr(targets, "__len__"):
        rule = "must be a dict by task, a data frame with a column for each task, or an array"
        found = f"a {type(targets).__name__}"
        if array.ndim:
            found += f" of shape {array.shape}"
        raise UserError("y", rule, found)
    return array
