"""Whole batches normalised by means and standard deviations."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from polytask._checks import check_number
from polytask._errors import UserError, hint
from polytask.data._array_dataset import ArrayDataset

Normalization = Sequence[float | Sequence[float]]


class Normalizer:
    """Subtracts a mean from batches and divides by a standard deviation; bytes are scaled to 0 to 1 first.

    Args:
        mean: One number, or one for each channel, the first dimension of a row.
        std: Likewise, above 0.
        where: The argument of both, for messages.

    Raises:
        UserError: If a number is not finite, or a standard deviation not above 0.

    Example:
        >>> Normalizer(0.5, 0.5, "normalize")(torch.tensor([[0, 255]], dtype=torch.uint8))
        tensor([[-1.,  1.]])
    """

    def __init__(self, mean: float | Sequence[float], std: float | Sequence[float], where: str) -> None:
        self.mean, self.std = _numbers(mean, where), _numbers(std, where)
        if not (self.std > 0).all():
            raise UserError(where, "standard deviations must be above 0", std)
        self.channels = max(self.mean.numel(), self.std.numel())

    def __call__(self, batch: Tensor) -> Tensor:
        """The batch, floating point.

        Args:
            batch: ``(rows, ...)``, or ``(rows, channels, ...)`` if there are numbers for each channel.
        """
        scale = 255.0 if batch.dtype == torch.uint8 else 1.0
        shape = (-1, *[1] * (batch.ndim - 2)) if self.channels > 1 else ()
        kind = torch.get_default_dtype()
        factor = (1.0 / (scale * self.std)).to(batch.device, kind)
        offset = (self.mean / self.std).to(batch.device, kind)
        # Always a copy, so that it can be changed in place.
        result = batch.to(kind, copy=True)
        return result.mul_(_shaped(factor, shape)).sub_(_shaped(offset, shape))


def normalizers(given: Any, dataset: ArrayDataset) -> dict[str, Normalizer]:
    """Normalizers by input; the only input has the empty name.

    Args:
        given: (mean, standard deviation) of every input, or such pairs by input; None for none.
        dataset: The data set with these inputs.

    Raises:
        UserError: If an input is unknown, or channels do not fit.
    """
    if given is None:
        return {}
    found = {}
    for name, pair in (given if isinstance(given, Mapping) else dict.fromkeys(dataset.inputs, given)).items():
        where = f"normalize.{name}" if name else "normalize"
        if name not in dataset.inputs:
            raise UserError(
                where, f"no input is called '{name}'", None, hint(str(name), dataset.inputs, "Inputs")
            )
        found[name] = _fitting(pair, dataset.inputs[name], where)
    return found


def _fitting(pair: Any, array: Tensor, where: str) -> Normalizer:
    if not isinstance(pair, Sequence) or isinstance(pair, str) or len(pair) != 2:
        raise UserError(where, "must be a pair of mean and standard deviation", repr(pair))
    found = Normalizer(pair[0], pair[1], where)
    channels = array.shape[1] if array.ndim > 1 else 1
    for numbers in (found.mean, found.std):
        if numbers.numel() not in (1, channels):
            shape = tuple(array.shape)
            raise UserError(
                where, f"must have 1 number, or {channels} for rows of shape {shape[1:]}", numbers.numel()
            )
    return found


def _numbers(value: object, where: str) -> Tensor:
    if isinstance(value, (np.ndarray, Tensor)):
        value = value.tolist()
    values: list[Any] = list(value) if isinstance(value, Sequence) and not isinstance(value, str) else [value]
    return torch.tensor([check_number(number, where) for number in values], dtype=torch.float64)


def _shaped(numbers: Tensor, shape: tuple[int, ...]) -> Tensor:
    return numbers.reshape(shape) if numbers.numel() > 1 else numbers.reshape(())
