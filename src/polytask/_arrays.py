"""From arrays to tensors and back."""

from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from polytask._errors import UserError

_WIDE = (torch.uint16, torch.uint32, torch.uint64)


def as_tensor(value: Any, where: str) -> Tensor:
    """An array, or something that is like one, as a tensor; unsigned integers above a byte become int64.

    Args:
        value: A tensor, an array, a series of a table, a list of numbers.
        where: What it is, for the message.

    Raises:
        UserError: Where it does not hold numbers.

    Example:
        >>> as_tensor(np.array([1, 2], dtype=np.uint16), "targets").dtype
        torch.int64
    """
    if isinstance(value, Tensor):
        return value.long() if value.dtype in _WIDE else value
    array = _numbers(value, where)
    if array.dtype.kind == "u" and array.dtype.itemsize > 1:
        array = array.astype(np.int64)
    elif array.dtype.kind == "f" and array.dtype.itemsize > 8:
        array = array.astype(np.float64)
    # Torch has neither negative strides, nor foreign byte orders, nor arrays that nobody may write to.
    native = np.require(array, array.dtype.newbyteorder("="), ["C", "W", "A"])
    return torch.from_numpy(native)


def _numbers(value: Any, where: str) -> NDArray[Any]:
    try:
        array = np.asarray(value)
    except ValueError as error:
        raise UserError(where, "has rows of one shape", str(error).splitlines()[0]) from error
    if array.dtype.kind not in "biuf":
        raise UserError(where, "holds numbers", f"{array.dtype} values", "Encode them as numbers first")
    return array


def as_tensors(values: Mapping[str, Any], where: str) -> dict[str, Tensor]:
    """Arrays by name as tensors by name.

    Args:
        values: Arrays by name.
        where: What they are, for the message.

    Raises:
        UserError: Where they are no mapping, or one does not hold numbers.

    Example:
        >>> as_tensors({"digit": [3, 7]}, "targets")
        {'digit': tensor([3, 7])}
    """
    if not isinstance(values, Mapping):
        raise UserError(where, "are a dict by task", type(values).__name__)
    return {name: as_tensor(value, f"{where}.{name}") for name, value in values.items()}


def as_inputs(inputs: Any, dtype: torch.dtype) -> Any:
    """Inputs as a model takes them: tensors, floating point in the model's own dtype.

    Args:
        inputs: An array, or a dict, list or tuple of them.
        dtype: The model's.

    Raises:
        UserError: Where one does not hold numbers.

    Example:
        >>> as_inputs({"x": np.zeros(2), "word": np.array([5])}, torch.float32)
        {'x': tensor([0., 0.]), 'word': tensor([5])}
    """
    if isinstance(inputs, Mapping):
        return {name: as_inputs(value, dtype) for name, value in inputs.items()}
    if _are_several(inputs):
        return type(inputs)(as_inputs(value, dtype) for value in inputs)
    tensor = as_tensor(inputs, "inputs")
    return tensor.to(dtype) if tensor.is_floating_point() else tensor


def float_dtype(module: torch.nn.Module) -> torch.dtype:
    """The floating point dtype of a module's parameters; torch's default where it has none.

    Example:
        >>> float_dtype(torch.nn.Linear(1, 1).double())
        torch.float64
    """
    floats = (parameter.dtype for parameter in module.parameters() if parameter.is_floating_point())
    return next(floats, torch.get_default_dtype())


def predict_rows(
    forward: Callable[[Any], Mapping[str, Tensor]], inputs: Any, batch_size: int
) -> dict[str, NDArray[Any]]:
    """Outputs by task for all rows, batch by batch, as arrays.

    Args:
        forward: From a batch of inputs, still arrays, to outputs by task.
        inputs: An array, or a dict, list or tuple of them.
        batch_size: Rows in a batch.

    Raises:
        UserError: Where there is no row, or arrays differ in their number of rows.

    Example:
        >>> {task: y.tolist() for task, y in predict_rows(lambda x: {"a": 2 * x}, torch.ones(3), 2).items()}
        {'a': [2.0, 2.0, 2.0]}
    """
    if isinstance(batch_size, bool) or not isinstance(batch_size, int) or batch_size < 1:
        raise UserError("batch_size", "is a number of rows", repr(batch_size))
    inputs = _sliceable(inputs)
    rows = count(inputs)
    parts = [
        {task: _array(output) for task, output in forward(_rows(inputs, start, batch_size)).items()}
        for start in range(0, rows, batch_size)
    ]
    return {task: np.concatenate([part[task] for part in parts]) for task in parts[0]}


def count(inputs: Any, where: str = "inputs") -> int:
    """The rows of an array, or of several that have equally many.

    Args:
        inputs: An array, or a dict, list or tuple of them.
        where: What they are, for the message.

    Raises:
        UserError: Where there is no row, or arrays differ in their number of rows.

    Example:
        >>> count({"image": np.zeros((4, 8, 8)), "age": np.zeros(4)})
        4
    """
    rows = {path: value.shape[0] if np.ndim(value) else 0 for path, value in _leaves(inputs, where)}
    if len(set(rows.values())) > 1:
        found = ", ".join(f"{path} has {number}" for path, number in rows.items())
        raise UserError(where, "have equally many rows", found)
    if not any(rows.values()):
        raise UserError(where, "need one row at least", "none")
    return next(iter(rows.values()))


def _leaves(inputs: Any, where: str) -> Iterator[tuple[str, Any]]:
    if isinstance(inputs, Mapping):
        for name, value in inputs.items():
            yield from _leaves(value, f"{where}.{name}")
    elif isinstance(inputs, (list, tuple)):
        for i, value in enumerate(inputs):
            yield from _leaves(value, f"{where}.{i}")
    else:
        yield where, inputs


def _sliceable(inputs: Any) -> Any:
    if isinstance(inputs, Mapping):
        return {name: _sliceable(value) for name, value in inputs.items()}
    if _are_several(inputs):
        return type(inputs)(_sliceable(value) for value in inputs)
    return inputs if isinstance(inputs, Tensor) else np.asarray(inputs)


def _are_several(inputs: Any) -> bool:
    """Whether a list is one of arrays, and not one of numbers."""
    return isinstance(inputs, (list, tuple)) and any(isinstance(x, (Tensor, np.ndarray)) for x in inputs)


def _array(output: Tensor) -> NDArray[Any]:
    output = output.detach().cpu()
    array: NDArray[Any] = (output.float() if output.dtype == torch.bfloat16 else output).numpy()
    return array


def _rows(inputs: Any, start: int, size: int) -> Any:
    if isinstance(inputs, Mapping):
        return {name: _rows(value, start, size) for name, value in inputs.items()}
    if isinstance(inputs, (list, tuple)):
        return type(inputs)(_rows(value, start, size) for value in inputs)
    return inputs[start : start + size]
