"""Arrays in memory or in files as tensors, each checked once."""

import os
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from polytask._errors import Reason, UserError
from polytask._lightning._noise import Silence, silenced
from polytask.batch import (
    are_strings,
    check_labels,
    check_no_gaps,
    is_missing,
    unknown_class,
    whole_labels,
)
from polytask.data._missing_values import array_with_missing, is_missing_value, numbers_of

# Elements that are checked at once, so that a check of a mapped file needs little memory.
_CHECKED = 1 << 22


def tensor_of(value: Any, where: str, label: int | None = None) -> Tensor:
    """The values as a tensor that shares their memory if possible; a file is mapped, not read.

    Args:
        value: A tensor, whatever numpy makes an array of, or the path of an ``.npy`` file. Missing values
            such as None and pandas' NA make integers floating point, with NaN.
        where: The argument, for the message.
        label: What a missing integer becomes instead.

    Raises:
        UserError: If there is no such file, or the values are not numbers.

    Example:
        >>> tensor_of([[1.0, 2.0]], "inputs").shape
        torch.Size([1, 2])
    """
    tensor = value.detach() if isinstance(value, Tensor) else _shared(array_of(value, where), where, label)
    if tensor.layout != torch.strided or tensor.is_complex() or tensor.ndim == 0:
        kind = f"{str(tensor.dtype).removeprefix('torch.')} of shape {tuple(tensor.shape)}"
        rule = "must be a dense array of real numbers, with a row for each sample"
        raise UserError(where, rule, f"{kind}, {tensor.layout}" if tensor.ndim else kind)
    return tensor


def array_of(value: Any, where: str) -> np.ndarray[Any, Any]:
    """A numpy array of the values; a file's is a map of it.

    Raises:
        UserError: If there is no such file, it is no ``.npy`` file, or rows differ in shape.
    """
    if not isinstance(value, (str, os.PathLike)):
        try:
            return array_with_missing(value)
        except ValueError as error:
            raise UserError(where, "must have rows of one shape", Reason.said(error)) from error
    try:
        # Copy on write: writable, so that torch takes it, and never written back.
        array = np.load(value, mmap_mode="c")
    except FileNotFoundError as error:
        raise UserError(where, "must be an existing file", str(value)) from error
    except (ValueError, OSError, EOFError) as error:
        raise UserError(
            where,
            "must be an .npy file of numbers",
            Reason(f"{value}: {error}"),
            "Write it with numpy.save",
        ) from error
    if not isinstance(array, np.ndarray):
        raise UserError(where, "must be an .npy file, which holds one array", str(value))
    return array


def _shared(array: np.ndarray[Any, Any], where: str, label: int | None = None) -> Tensor:
    if array.dtype == object and (found := numbers_of(array, label)) is not None:
        array = found
    if array.dtype.kind not in "biuf":
        raise UserError(where, "must contain numbers", _sample(array), "Encode them first")
    if array.dtype.kind == "f" and array.dtype.itemsize > 8:
        array = array.astype(np.float64)
    if not array.dtype.isnative:
        array = array.astype(array.dtype.newbyteorder("="))
    if any(stride < 0 for stride in array.strides):
        array = np.ascontiguousarray(array)
    with silenced(Silence.READ_ONLY):
        return torch.from_numpy(array)


def _sample(array: np.ndarray[Any, Any]) -> str:
    values = array.reshape(-1).tolist()
    strings = any(isinstance(value, (str, bytes)) for value in values)
    kind = "strings" if strings else "objects" if array.dtype == object else str(array.dtype)
    first = [repr(value) for value in values[:2]]
    return f"{kind} such as {', '.join(first)}" if first else kind


def target_of(name: str, value: Any, classes: int | Sequence[str] | None, ignore_index: int) -> Tensor:
    """A task's targets as a tensor, checked.

    Args:
        name: The task.
        value: What `tensor_of` takes; strings if ``classes`` names them.
        classes: The classes' names in order, or how many there are; None if that is not known.
        ignore_index: The integer that means "no label".

    Raises:
        UserError: If strings have no class, a class label is negative or beyond the last class, or there is
            no label.

    Example:
        >>> target_of("kind", ["b", "a"], ["a", "b"], -100)
        tensor([1, 0])
    """
    where = f"targets.{name}"
    if not isinstance(value, Tensor):
        value = array_of(value, where)
        if value.dtype == object and (numbers := numbers_of(value, ignore_index)) is not None:
            value = numbers
        elif are_strings(value.dtype.kind) or value.dtype == object:
            value = _encoded(value, classes, name, ignore_index)
    target = tensor_of(value, where)
    if classes is not None and target.is_floating_point():
        target = whole_labels(target, f"task '{name}'", ignore_index)
    integers = not target.is_floating_point() and target.dtype != torch.bool
    if integers and target.shape[1:] == (1,):
        target = target[:, 0]
    if all(bool(is_missing(part, ignore_index).all()) for part in _parts(target)):
        raise UserError(f"task '{name}'", "requires a label", "none in its targets", "Leave the task out")
    if integers:
        number = len(classes) if isinstance(classes, Sequence) else classes
        fix = "Renumber the classes, or pass floats if these are values" if number is None else None
        for part in _parts(target):
            check_labels(part, f"task '{name}'", number, ignore_index=ignore_index, fix=fix)
    return target


def _encoded(
    strings: np.ndarray[Any, Any], classes: int | Sequence[str] | None, name: str, ignore_index: int
) -> Tensor:
    if classes is None or not isinstance(classes, Sequence):
        fix = f"Pass classes={{'{name}': [...]}} with the classes' names in order"
        raise UserError(
            f"task '{name}'", "targets must be numbers, or strings with named classes", _sample(strings), fix
        )
    indices = {class_name: index for index, class_name in enumerate(classes)}
    found, inverse = np.unique(
        np.array(["" if is_missing_value(value) else str(value) for value in strings.reshape(-1)]),
        return_inverse=True,
    )
    for label in found.tolist():
        if label and label not in indices:
            raise unknown_class(label, classes, f"task '{name}'")
    codes = np.array([indices.get(label, ignore_index) for label in found.tolist()])
    return torch.from_numpy(codes[inverse].reshape(strings.shape))


def check_gaps(name: str, target: Tensor, ignore_index: int) -> None:
    """Raise if the rows' classes are not 0, 1, … up to the last one.

    Targets that are not one class for each row, such as maps and values, pass.

    Args:
        name: The task.
        target: Its targets.
        ignore_index: The integer that means "no label".

    Raises:
        UserError: With the first class that no row has.
    """
    if target.is_floating_point() or target.dtype == torch.bool or target.ndim > 1:
        return
    present = np.unique(target[~is_missing(target, ignore_index)].long().cpu().numpy()).tolist()
    count = present[-1] + 1 if present else 0
    fix = f"Renumber them; or pass classes={{'{name}': {count}}}; or pass floats if these are values"
    check_no_gaps(present, f"task '{name}'", fix)


def _parts(tensor: Tensor) -> Iterator[Tensor]:
    rows = max(1, _CHECKED // max(1, tensor[:1].numel()))
    return (tensor[first : first + rows] for first in range(0, len(tensor), rows))


def by_name(value: Any, where: str) -> dict[str, Tensor]:
    """Arrays by name as tensors; a single one under the empty name.

    Raises:
        UserError: If there is none.
    """
    if not isinstance(value, Mapping):
        return {"": tensor_of(value, where)}
    if not value:
        raise UserError(where, "must contain at least one array", "an empty dict")
    return {str(name): tensor_of(own, f"{where}.{name}") for name, own in value.items()}
