"""Arrays on their way into a model and out of it."""

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from polytask._errors import UserError
from polytask.data._array_loader import create_multitask_dataloader
from polytask.data._arrays import tensor_of

# Torch compares and counts these nowhere.
_WIDE = (torch.uint16, torch.uint32, torch.uint64)


def as_tensor(value: Any, where: str) -> Tensor:
    """An array as a tensor; unsigned integers above a byte become int64.

    Args:
        value: A tensor, or whatever numpy makes an array of.
        where: What it is, for the message.

    Raises:
        UserError: Where it does not hold numbers.

    Example:
        >>> as_tensor(np.array([1, 2], dtype=np.uint16), "targets").dtype
        torch.int64
    """
    tensor = value if isinstance(value, Tensor) else tensor_of(value, where)
    return tensor.long() if tensor.dtype in _WIDE else tensor


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


def as_inputs(inputs: Any, dtype: torch.dtype, device: torch.device | None = None) -> Any:
    """Inputs as a model takes them: tensors, floating point in the model's own dtype.

    Args:
        inputs: An array, or a dict, list or tuple of them.
        dtype: The model's.
        device: Where they are to be; where they are if None.

    Raises:
        UserError: Where one does not hold numbers.

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
    """The floating point dtype of a module's parameters; torch's default where it has none.

    Example:
        >>> float_dtype(nn.Linear(1, 1).double())
        torch.float64
    """
    floats = (parameter.dtype for parameter in module.parameters() if parameter.is_floating_point())
    return next(floats, torch.get_default_dtype())


def predict_rows(
    module: nn.Module, forward: Callable[[Any], Mapping[str, Tensor]], inputs: Any, batch_size: int
) -> dict[str, NDArray[Any]]:
    """Outputs by task for all rows, batch by batch, as arrays; the module is in evaluation meanwhile.

    Args:
        module: What computes, on the device that it is on.
        forward: From a batch of inputs to outputs by task.
        inputs: One array, or a dict of arrays.
        batch_size: Rows in a batch.

    Raises:
        UserError: Where there is no row, or arrays differ in their number of rows.

    Example:
        >>> double = nn.Linear(1, 1, bias=False)
        >>> _ = nn.init.constant_(double.weight, 2.0)
        >>> predict_rows(double, lambda x: {"a": double(x)}, np.ones((3, 1)), 2)["a"].ravel().tolist()
        [2.0, 2.0, 2.0]
    """
    loader = create_multitask_dataloader(inputs, None, batch_size, shuffle=False)
    dtype, device = float_dtype(module), next((p.device for p in module.parameters()), None)
    training = module.training
    module.eval()
    try:
        with torch.inference_mode():
            outputs = [forward(as_inputs(batch, dtype, device)) for batch, _ in loader]
            return {task: _joined([output[task] for output in outputs]) for task in outputs[0]}
    finally:
        module.train(training)


def _joined(parts: list[Tensor]) -> NDArray[Any]:
    output = torch.cat(parts).cpu()
    array: NDArray[Any] = (output.float() if output.dtype == torch.bfloat16 else output).numpy()
    return array
