"""Arrays as a data set of many tasks."""

import os
from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import Dataset

from polytask._checks import check_integer
from polytask._errors import UserError
from polytask._tasks import check_known, check_task_names
from polytask.batch import IGNORE_INDEX, check_classes
from polytask.data._array_values import by_name, check_gaps, target_of, tensor_of

Sample = tuple[Any, dict[str, Tensor]]
# torch cannot gather these types, but it can gather the same bytes as signed integers.
_AS_SIGNED = {torch.uint16: torch.int16, torch.uint32: torch.int32, torch.uint64: torch.int64}


class ArrayDataset(Dataset[Sample]):
    """Rows of arrays, with a target for each task.

    Arrays are numpy arrays, tensors, lists or data frames, or paths of ``.npy`` files, which are mapped and
    not read. Only the rows of a batch are copied. In a batch, floating point numbers have torch's default
    type, classes are ``int64``, and other inputs keep their type. A label is missing if a floating point
    target is NaN or an integer is ``ignore_index``; with named classes, if there is no string.

    Args:
        inputs: One array, or a dict of arrays, which the model receives as a dict.
        targets: By task an array with a row for each row of the inputs. Integers are classes: whole numbers
            that are values must be floating point. Booleans are two classes, or several labels if a row
            has more than one. None for prediction only.
        classes: By task the number of classes, or their names in order; targets may then be strings, or
            floating point with NaN for missing ones.
        ignore_index: The integer that means "no label".

    Shape:
        - An item is (inputs ``(...)`` or a dict of them, targets ``(...)`` by task).

    Raises:
        UserError: If arrays differ in length or are not numbers, a task has no label, or a class is invalid.

    Example:
        >>> data = ArrayDataset([[0.5], [1.5]], {"kind": [0, 1], "height": [2.0, float("nan")]})
        >>> data[1]
        (tensor([1.5000]), {'kind': tensor(1), 'height': tensor(nan)})
        >>> len(data), data.take(torch.tensor([1, 0]))[1]["kind"]
        (2, tensor([1, 0]))
    """

    # A subclass that makes its arrays itself has no files.
    _files: Mapping[tuple[str, str], Any] = MappingProxyType({})

    def __init__(
        self,
        inputs: Any,
        targets: Mapping[str, Any] | None = None,
        *,
        classes: Mapping[str, int | Sequence[str]] | None = None,
        ignore_index: int = IGNORE_INDEX,
    ) -> None:
        self.ignore_index = check_integer(ignore_index, "ignore_index")
        self.classes = dict(classes or {})
        self.single = not isinstance(inputs, Mapping)
        self.inputs = by_name(inputs, "inputs")
        if targets is not None and not isinstance(targets, Mapping):
            raise UserError(
                "targets", "must be a dict by task", type(targets).__name__, "Write {'task': ...}"
            )
        names = check_task_names(targets, "targets") if targets else ()
        check_known(self.classes, names, "classes")
        for name, own in self.classes.items():
            check_classes(own, f"classes.{name}")
        self.targets = {
            name: target_of(name, own, self.classes.get(name), self.ignore_index)
            for name, own in (targets or {}).items()
        }
        self._files = {
            (kind, name): own
            for kind, given in (
                ("inputs", {"": inputs} if self.single else inputs),
                ("targets", targets or {}),
            )
            for name, own in given.items()
            if isinstance(own, (str, os.PathLike))
        }
        self._check_lengths()

    def __getstate__(self) -> dict[str, Any]:
        # A worker maps a file again instead of receiving its content.
        return {
            **self.__dict__,
            **{
                kind: {name: None if (kind, name) in self._files else own for name, own in arrays.items()}
                for kind, arrays in (("inputs", self.inputs), ("targets", self.targets))
            },
        }

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        for (kind, name), file in self._files.items():
            if kind == "inputs":
                self.inputs[name] = tensor_of(file, f"inputs.{name}")
            else:
                self.targets[name] = target_of(name, file, self.classes.get(name), self.ignore_index)

    def _check_lengths(self) -> None:
        rows = len(self)
        inputs = {f"inputs.{name}" if name else "inputs": own for name, own in self.inputs.items()}
        first = next(iter(inputs))
        for where, own in {**inputs, **{f"task '{name}'": own for name, own in self.targets.items()}}.items():
            if len(own) != rows:
                rule = f"must have a row for each of the {rows} rows of {first}"
                raise UserError(where, rule, f"{len(own)}, in an array of shape {tuple(own.shape)}")
        if rows == 0:
            raise UserError(first, "must have at least one row", "none")

    def check_gaps(self) -> None:
        """Raise if a task's classes, unless they were given, are not 0, 1, … each with a row.

        Raises:
            UserError: With the task and the first missing class.
        """
        for name, target in self.targets.items():
            if name not in self.classes:
                check_gaps(name, target, self.ignore_index)

    def __len__(self) -> int:
        return len(next(iter(self.inputs.values())))

    def __getitem__(self, index: int) -> Sample:
        if not -len(self) <= index < len(self):
            raise IndexError(f"row {index} of {len(self)}")
        inputs, targets = self.take(torch.tensor([index % len(self)]))
        one = inputs[0] if self.single else {name: own[0] for name, own in inputs.items()}
        return one, {name: target[0] for name, target in targets.items()}

    def take(self, rows: Tensor) -> Sample:
        """A batch, with one gather for each array.

        Args:
            rows: Indices of rows, 0 or more, ``(rows,)``.

        Returns:
            The inputs, and the targets by task, ``(rows, ...)`` each.
        """
        inputs = {name: _floating(_gathered(own, rows)) for name, own in self.inputs.items()}
        targets = {name: _target(_gathered(own, rows)) for name, own in self.targets.items()}
        return inputs[""] if self.single else inputs, targets

    def __repr__(self) -> str:
        arrays = {name or "inputs": tuple(own.shape) for name, own in self.inputs.items()}
        return f"ArrayDataset({arrays}, tasks={list(self.targets)})"


def _gathered(array: Tensor, rows: Tensor) -> Tensor:
    rows = rows if array.device == rows.device else rows.to(array.device)
    if array.dtype not in _AS_SIGNED:
        return array.index_select(0, rows)
    return array.view(_AS_SIGNED[array.dtype]).index_select(0, rows).view(array.dtype)


def _floating(batch: Tensor) -> Tensor:
    return batch.to(torch.get_default_dtype()) if batch.is_floating_point() else batch


def _target(batch: Tensor) -> Tensor:
    several = batch.ndim > 1 and batch.shape[1:] != (1,)
    if batch.is_floating_point() or (batch.dtype == torch.bool and several):
        return batch.to(torch.get_default_dtype())
    return batch.long()
