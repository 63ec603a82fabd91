"""Checks of the models' arguments and inputs."""

from collections.abc import Mapping, Sequence
from typing import Any, TypeGuard

import torch
from torch import nn

from polytask._checks import is_finite, is_integer
from polytask._errors import UserError


def is_size(value: object) -> TypeGuard[int]:
    """Whether a value is an integer above zero, numpy's included; True and False are not sizes."""
    return is_integer(value, 1)


def check_size(value: object, where: str) -> int:
    """The value as an int, after it was checked to be an integer above zero.

    Raises:
        UserError: If it is not.
    """
    if not is_size(value):
        raise UserError(where, "must be an integer of at least 1", repr(value))
    return int(value)


def check_count(value: object, where: str) -> int:
    """The value as an int, after it was checked to be an integer of at least 0.

    Raises:
        UserError: If it is not.
    """
    if not is_integer(value, 0):
        raise UserError(where, "must be an integer of at least 0", repr(value))
    return int(value)


def check_sizes(values: object, where: str) -> tuple[int, ...]:
    """The values as a tuple, after each was checked to be an integer above zero; None is the empty tuple.

    Raises:
        UserError: If they are not a list, or one of them is not an integer above zero.
    """
    if values is None:
        return ()
    if not isinstance(values, Sequence) or isinstance(values, str):
        fix = f"Write [{values}]" if is_size(values) else None
        raise UserError(where, "must be a list of integers", repr(values), fix)
    return tuple(check_size(value, f"{where}[{index}]") for index, value in enumerate(values))


def check_sides(value: int | Sequence[int], where: str) -> tuple[int, int]:
    """Height and width, given as a pair or as one number for both.

    Raises:
        UserError: If they are not integers above zero.
    """
    both = value if isinstance(value, Sequence) else (value, value)
    if len(both) != 2:
        raise UserError(where, "must be one number, or height and width", repr(value))
    height, width = (check_size(side, where) for side in both)
    return height, width


def check_dropout(value: object, where: str = "dropout") -> float:
    """The value as a float, after it was checked to be a probability below one.

    Raises:
        UserError: If it is not in [0, 1).
    """
    if not is_finite(value) or not 0 <= value < 1:
        raise UserError(where, "must be a number in [0, 1)", repr(value))
    return float(value)


def check_share(value: object, where: str) -> float:
    """The value as a float, after it was checked to be a number from 0 to 1.

    Raises:
        UserError: If it is not.
    """
    if not is_finite(value) or not 0 <= value <= 1:
        raise UserError(where, "must be a number from 0 to 1", repr(value))
    return float(value)


def check_strength(value: object, where: str) -> float:
    """The value as a float, after it was checked to be a finite number of at least 0.

    Raises:
        UserError: If it is not.
    """
    if not is_finite(value) or value < 0:
        raise UserError(where, "must be a number of at least 0", repr(value))
    return float(value)


def check_mapping(value: object, where: str) -> Mapping[Any, Any]:
    """The value, after it was checked to be a mapping.

    Raises:
        UserError: If it is not.
    """
    if not isinstance(value, Mapping):
        raise UserError(where, "must be a dict", repr(value))
    return value


def check_module(value: object, where: str) -> nn.Module:
    """The value, after it was checked to be a module.

    Raises:
        UserError: If it is not, for example if it is a module's class.
    """
    if not isinstance(value, nn.Module):
        found = f"the class {value.__name__}" if isinstance(value, type) else type(value).__name__
        raise UserError(where, "must be a torch.nn.Module", found, "Pass an instance")
    return value


def check_features(x: object, features: int) -> torch.Tensor:
    """The representation, after it was checked to have ``features`` values in its last dimension.

    Raises:
        UserError: If it does not, with both shapes.
    """
    rule = f"must be a tensor of shape (..., {features}) for this head"
    if not isinstance(x, torch.Tensor):
        raise UserError("representation", rule, f"a {type(x).__name__}")
    if x.dim() == 0 or x.shape[-1] != features:
        raise UserError("representation", rule, f"shape {tuple(x.shape)}")
    return x
