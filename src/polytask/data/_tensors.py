"""Arrays as the tensors that a model takes."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from polytask._errors import UserError
from polytask.batch import IGNORE_INDEX
from polytask.data._array_values import tensor_of

# Torch can neither compare nor count these.
_WIDE = (torch.uint16, torch.uint32, torch.uint64)


def as_tensor(value: Any, where: str, label: int | None = None) -> Tensor:
    """An array as a tensor; unsigned integers above a byte become int64.

    Args:
        value: A tensor, or anything that numpy can make an array of.
        where: The argument, for the message.
        label: What a missing integer becomes; if None, integers with a missing one become floating point.

    Raises:
        UserError: If it does not hold numbers.

    Example:
        >>> as_tensor(np.array([1, 2], dtype=np.uint16), "targets").dtype
        torch.int64
    """
    tensor = value if isinstance(value, Tensor) else tensor_of(value, where, label)
    return tensor.long() if tensor.dtype in _WIDE else tensor


def as_tensors(values: Mapping[str, Any], where: str) -> dict[str, Tensor]:
    """Targets by task as tensors by task; a missing integer becomes the label that is ignored.

    Args:
        values: Arrays by name.
        where: The argument, for the message.

    Raises:
        UserError: If they are no mapping, or one does not hold numbers.

    Example:
        >>> as_tensors({"digit": [3, 7]}, "targets")
        {'digit': tensor([3, 7])}
    """
    if not isinstance(values, Mapping):
        raise UserError(where, "must be a dict by task", type(values).__name__)
    return {name: as_tensor(value, f"{where}.{name}", IGNORE_INDEX) for name, value in values.items()}


def as_inputs(inputs: Any, dtype: torch.dtype, device: torch.device | None = None) -> Any:
    """Inputs as a model takes them: tensors, floating point in the model's own dtype.

    Args:
        inputs: An array, or a dict, list or tuple of them.
        dtype: The model's.
        device: Their device; unchanged if None.

    Raises:
        UserError: If one does not hold numbers.

    Example:
        >>> as_inputs({"x": np.zeros(2), "word": np.array([5])}, torch.float32)
        {'x': tensor([0., 0.]), 'word': tensor([5])}
    """
    if isinstance(inputs, Mapping):
        return {name: as_inputs(value, dtype, device) for name, value in inputs.items()}
    if isinstance(inputs, (list, tuple)) and any(isinstance(x, (Tensor, np.ndarray)) for x in inputs):
        return type(inputs)(as_inputs(value, dtype, device) for value in inputs)
    tensor = as_tensor(inputs, "inputs")
    return tensor.to(device, dtype if tensor.is_floating_point() else None)


def float_dtype(module: nn.Module) -> torch.dtype:
    """The floating point dtype of a module's parameters; torch's default if it has none.

    Example:
        >>> float_dtype(nn.Linear(1, 1).double())
        torch.float64
    """
    floats = (parameter.dtype for parameter in module.parameters() if parameter.is_floating_point())
    return next(floats, torch.get_default_dtype())
