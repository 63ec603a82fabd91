"""Predictions for arrays, batch by batch."""

from collections.abc import Callable, Mapping
from typing import Any

import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from polytask.data import create_multitask_dataloader
from polytask.data._tensors import as_inputs, float_dtype


def predict_rows(
    module: nn.Module, forward: Callable[[Any], Mapping[str, Tensor]], inputs: Any, batch_size: int
) -> dict[str, NDArray[Any]]:
    """Outputs by task for all rows, computed batch by batch in evaluation mode, as arrays.

    Args:
        module: The module that computes them, on its device.
        forward: From a batch of inputs to outputs by task.
        inputs: One array, or a dict of arrays.
        batch_size: Rows in a batch.

    Raises:
        UserError: If there is no row, or the arrays' numbers of rows differ.

    Example:
        >>> import numpy as np
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
