"""Arrays in memory or in files as tensors, each checked once."""

import os
import warnings
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from polytask._checks import is_integer
from polytask._errors import UserError, hint
from polytask.batch import is_missing

# Elements that a check looks at in one go, so that it needs little memory beside a mapped file.
_CHECKED = 1 << 22


def tensor_of(value: Any, where: str) -> Tensor:
    """The values as a tensor that shares their memory where it can; a file is mapped, not read.

    Args:
        value: A tensor, whatever numpy makes an array of, or the path of an ``.npy`` file.
        where: The argument, for the message.

    Raises:
        UserError: Where there is no such file, or the values are no numbers.

    Example:
        >>> tensor_of([[1.0, 2.0]], "inputs").shape
        torch.Size([1, 2])
    """
    tensor = value.detach() if isinstance(value, Tensor) else _shared(array_of(value, where), where)
    if tensor.layout != torch.strided or tensor.is_complex() or tensor.ndim == 0:
        kind = f"{str(tensor.dtype).removeprefix('torch.')} of shape {tuple(tensor.shape)}"
        rule = "is a dense array of real numbers, with a row for each sample"
        raise UserError(where, rule, f"{kind}, {tensor.layout}" if tensor.ndim else kind)
    return tensor


def array_of(value: Any, where: str) -> np.ndarray[Any, Any]:
    """A numpy array of the values; a file's is a map of it.

    Raises:
        UserError: Where there is no such file, it is no ``.npy`` file, or rows differ in shape.
    """
    if not isinstance(value, (str, os.PathLike)):
        try:
            return np.asarray(value)
        except ValueError as error:
            raise UserError(where, "has rows of one shape", " ".join(str(error).split())) from error
    try:
        # Copy on write: writable, so that torch takes it, and never written back.
        array = np.load(value, mmap_mode="c")
    except FileNotFoundError as error:
        raise UserError(where, "no such file", str(value)) from error
    except (ValueError, OSError, EOFError) as error:
        raise UserError(
            where,
            "is an .npy file of numbers",
            f"{value}: {' '.join(str(error).split())}",
            "Write it with numpy.save",
        ) from error
    if not isinstance(array, np.ndarray):
        raise UserError(where, "is an .npy file, which holds one array", str(value), "Name an array's file")
    return array


def _shared(array: np.ndarray[Any, Any], where: str) -> Tensor:
    if array.dtype.kind not in "biuf":
        raise UserError(where, "needs numbers", _sample(array), "Encode them first")
    if array.dtype.kind == "f" and array.dtype.itemsize > 8:
        array = array.astype(np.float64)
    if not array.dtype.isnative:
        array = array.astype(array.dtype.newbyteorder("="))
    if any(stride < 0 for stride in array.strides):
        array = np.ascontiguousarray(array)
    with warnings.catch_warnings():
        # Nothing here writes to what it was given.
        warnings.filterwarnings("ignore", message=".*not writable.*")
        return torch.from_numpy(array)


def _sample(array: np.ndarray[Any, Any]) -> str:
    values = array.reshape(-1).tolist()
    texts = any(isinstance(value, (str, bytes)) for value in values)
    kind = "texts" if texts else "objects" if array.dtype == object else str(array.dtype)
    first = [repr(value) for value in values[:2]]
    return f"{kind} such as {', '.join(first)}" if first else kind


def target_of(name: str, value: Any, classes: int | Sequence[str] | None, ignore_index: int) -> Tensor:
    """A task's targets as a tensor, checked.

    Args:
        name: The task.
        value: What `tensor_of` takes; texts where ``classes`` names them.
        classes: The classes' names in order, or how many there are; not known where None.
        ignore_index: The integer that means "no label".

    Raises:
        UserError: Where texts have no number, a class is negative or beyond the last one, or no label is
            there.

    Example:
        >>> target_of("kind", ["b", "a"], ["a", "b"], -100)
        tensor([1, 0])
    """
    where = f"targets.{name}"
    if not isinstance(value, Tensor):
        value = array_of(value, where)
        if value.dtype.kind in "USO":
            value = _encoded(value, classes, name, ignore_index)
    target = tensor_of(value, where)
    if classes is not None and target.is_floating_point():
        target = _whole(name, target, ignore_index)
    integers = not target.is_floating_point() and target.dtype != torch.bool
    if integers and target.shape[1:] == (1,):
        target = target[:, 0]
    if all(bool(is_missing(part, ignore_index).all()) for part in _parts(target)):
        raise UserError(f"task '{name}'", "needs a label", "none in its targets", "Leave the task out")
    if integers:
        _check_classes(name, target, classes, ignore_index)
    return target


def _encoded(
    texts: np.ndarray[Any, Any], classes: int | Sequence[str] | None, name: str, ignore_index: int
) -> Tensor:
    if classes is None or not isinstance(classes, Sequence):
        fix = f"Pass classes={{'{name}': [...]}} with the classes' names in order"
        raise UserError(
            f"task '{name}'", "targets are numbers, or texts whose classes are named", _sample(texts), fix
        )
    places = {text: place for place, text in enumerate(classes)}
    found, inverse = np.unique(np.array([_text(value) for value in texts.reshape(-1)]), return_inverse=True)
    for text in found.tolist():
        if text and text not in places:
            raise UserError(
                f"task '{name}'", f"no class is called '{text}'", None, hint(text, places, "Classes")
            )
    codes = np.array([places.get(text, ignore_index) for text in found.tolist()])
    return torch.from_numpy(codes[inverse].reshape(texts.shape))


def _text(value: Any) -> str:
    """The text; nothing where there is none: None, or what pandas has for it, NaN or NA."""
    if value is None:
        return ""
    try:
        return "" if value != value else str(value)
    except TypeError:
        # NA is neither equal to itself nor different.
        return ""


def _whole(name: str, target: Tensor, ignore_index: int) -> Tensor:
    """Classes that a missing one made floating point are integers again."""
    missing = target.isnan()
    whole = target.masked_fill(missing, ignore_index).long()
    strange = target[~missing & (whole != target)]
    if len(strange):
        raise UserError(f"task '{name}'", "classes are whole numbers", f"{strange[0].item():.4g}")
    return whole


def check_class_names(classes: Mapping[str, int | Sequence[str]]) -> None:
    """Raise where classes are neither a number of them, nor texts, each once.

    Args:
        classes: By task.

    Raises:
        UserError: With the task.
    """
    for name, given in classes.items():
        texts = list(given) if isinstance(given, Sequence) and not isinstance(given, str) else []
        if not is_integer(given, 1) and (not texts or len(set(map(str, texts))) < len(texts)):
            raise UserError(f"classes.{name}", "are texts in order, each once; or their number", repr(given))


def _check_classes(name: str, target: Tensor, classes: int | Sequence[str] | None, ignore_index: int) -> None:
    number = len(classes) if isinstance(classes, Sequence) else classes
    for part in _parts(target):
        labels = part[~is_missing(part, ignore_index)].long()
        if len(labels) == 0:
            continue
        low, high = int(labels.min()), int(labels.max())
        if low < 0:
            raise UserError(
                f"task '{name}'",
                f"integers are classes from 0, or {ignore_index} for a missing label",
                low,
                "Number the classes anew, or pass floats where these are values",
            )
        if number is not None and high >= number:
            raise UserError(f"task '{name}'", f"has {number} classes, 0 to {number - 1}", f"class {high}")


def check_gaps(name: str, target: Tensor, ignore_index: int) -> None:
    """Raise where the rows' classes are not 0, 1, … up to the last one.

    Targets that are no class for each row, such as maps and values, pass.

    Args:
        name: The task.
        target: Its targets.
        ignore_index: The integer that means "no label".

    Raises:
        UserError: With the first class that no row has.
    """
    if target.is_floating_point() or target.dtype == torch.bool or target.ndim > 1:
        return
    present = torch.from_numpy(np.unique(target[~is_missing(target, ignore_index)].long().cpu().numpy()))
    gaps = (present != torch.arange(len(present))).nonzero()
    if len(gaps):
        raise UserError(
            f"task '{name}'",
            f"classes are 0 to {int(present[-1])}, each with a row",
            f"none of class {int(gaps[0])}",
            f"Number them anew; or pass classes={{'{name}': {int(present[-1]) + 1}}}, or floats where these "
            "are values",
        )


def _parts(tensor: Tensor) -> Iterator[Tensor]:
    rows = max(1, _CHECKED // max(1, tensor[:1].numel()))
    return (tensor[first : first + rows] for first in range(0, len(tensor), rows))


def by_name(value: Any, where: str) -> dict[str, Tensor]:
    """Arrays by name as tensors; a single one under the empty name.

    Raises:
        UserError: Where there is none.
    """
    if not isinstance(value, Mapping):
        return {"": tensor_of(value, where)}
    if not value:
        raise UserError(where, "needs an array", "an empty dict")
    return {str(name): tensor_of(own, f"{where}.{name}") for name, own in value.items()}
