"""What counts as an integer, a number, a probability and a name among arguments.

The scalars of numpy and torch count as those of Python; a boolean is never a number. ``is_...`` answers;
``check_...`` returns the value as a plain Python one, or raises.
"""

import math
import re
import sys
from numbers import Integral, Real
from typing import Any, TypeGuard

from polytask._errors import UserError

_NAME = re.compile(r"[A-Za-z][A-Za-z0-9_]*")


def is_integer(value: object, least: int | None = None, most: int | None = None) -> TypeGuard[int]:
    """Whether a value is an integer in a range.

    Args:
        value: The value.
        least: The smallest integer in the range; None for any.
        most: The largest integer in the range; None for any.

    Example:
        >>> import numpy as np
        >>> is_integer(np.int64(3), 1), is_integer(np.array(3)), is_integer(0, 1), is_integer(7, 0, 5)
        (True, True, False, False)
        >>> is_integer(True), is_integer(2.0)
        (False, False)
    """
    value = _scalar(value)
    # A time span of numpy counts as Integral.
    if isinstance(value, bool) or hasattr(value, "dtype") or not isinstance(value, Integral):
        return False
    return (least is None or int(value) >= least) and (most is None or int(value) <= most)


def is_number(value: object) -> TypeGuard[float]:
    """Whether a value is a real number, finite or not.

    Args:
        value: The value.

    Example:
        >>> import numpy as np
        >>> is_number(np.float32(0.5)), is_number(float("inf")), is_number(True), is_number("1")
        (True, True, False, False)
    """
    value = _scalar(value)
    return not isinstance(value, bool) and not hasattr(value, "dtype") and isinstance(value, Real)


def is_finite(value: object) -> TypeGuard[float]:
    """Whether a value is a finite number.

    Args:
        value: The value.

    Example:
        >>> is_finite(0.5), is_finite(float("nan")), is_finite(float("inf")), is_finite(10**400)
        (True, False, False, False)
    """
    # Compared as it is: integers above the range of a float cannot be converted.
    value = _scalar(value)
    return is_number(value) and -sys.float_info.max <= value <= sys.float_info.max


def is_number_or_bool(value: object) -> TypeGuard[float]:
    """Whether a value is a real number, or a boolean, which a message about numbers may be about too.

    Args:
        value: The value.

    Example:
        >>> is_number_or_bool(0.5), is_number_or_bool(True), is_number_or_bool("1")
        (True, True, False)
    """
    return isinstance(_scalar(value), bool) or is_number(value)


def is_name(value: object) -> TypeGuard[str]:
    """Whether a value is a letter followed by letters, digits or underscores.

    Args:
        value: The value.

    Example:
        >>> is_name("digit_2"), is_name("2digit"), is_name(2)
        (True, False, False)
    """
    return isinstance(value, str) and _NAME.fullmatch(value) is not None


def check_integer(
    value: object,
    where: str,
    least: int | None = None,
    most: int | None = None,
    *,
    of: str = "",
    optional: bool = False,
) -> int:
    """The value as an ``int``.

    Args:
        value: The value.
        where: The argument it was given for, for the message.
        least: The smallest integer in the range; None for any.
        most: The largest integer in the range; None for any.
        of: What is counted, for the message.
        optional: Whether the caller takes None too, for the message.

    Raises:
        UserError: If the value is no integer in the range.

    Example:
        >>> check_integer(0, "batch_size", 1)
        Traceback (most recent call last):
        polytask._errors.UserError: batch_size: must be an integer of at least 1, got 0.
    """
    if not is_integer(value, least, most):
        end = f" {of}" * bool(of) + " or None" * optional
        rule = f"must be an integer{_range(least, most)}{end}"
        raise UserError(where, rule, shown(value))
    return int(value)


def check_number(
    value: object,
    where: str,
    *,
    above: float = -math.inf,
    least: float = -math.inf,
    most: float = math.inf,
    below: float = math.inf,
) -> float:
    """The value as a ``float``.

    Args:
        value: The value.
        where: The argument it was given for, for the message.
        above: A number that the value must exceed.
        least: The smallest number in the range.
        most: The largest number in the range.
        below: A number that must exceed the value.

    Raises:
        UserError: If the value is no finite number in the range.

    Example:
        >>> import numpy as np
        >>> check_number(np.float64(0.5), "temperature", above=0)
        0.5
        >>> check_number(0, "temperature", above=0)
        Traceback (most recent call last):
        polytask._errors.UserError: temperature: must be a finite number above 0, got 0.
    """
    if not is_finite(value) or not (above < value < below and least <= value <= most):
        limits = [("above", above), ("of at least", least), ("at most", most), ("below", below)]
        rules = [f"{word} {limit:g}" for word, limit in limits if math.isfinite(limit)]
        raise UserError(where, f"must be a finite number {' and '.join(rules)}".rstrip(), shown(value))
    return float(value)


def check_probability(value: object, where: str) -> float:
    """The value as a ``float``, from 0 to 1.

    Args:
        value: The value.
        where: The argument it was given for, for the message.

    Raises:
        UserError: If the value is no number from 0 to 1.

    Example:
        >>> check_probability(1, "dropout")
        1.0
    """
    if not is_finite(value) or not 0 <= value <= 1:
        raise UserError(where, "must be a number from 0 to 1", shown(value))
    return float(value)


def shown(value: object) -> str:
    """A value as an error shows it: the repr of the Python value for a scalar of numpy or torch.

    Args:
        value: The value.

    Example:
        >>> import numpy as np
        >>> shown(np.int64(3)), shown("3")
        ('3', "'3'")
    """
    return repr(_scalar(value))


def _scalar(value: Any) -> object:
    """The Python value of a scalar of numpy or torch, without importing either.

    A tensor that requires a gradient is none, since its gradient would be lost; nor are one without a value,
    and numpy's dates and time spans.
    """
    if type(value) in (bool, int, float, str) or getattr(value, "ndim", None) != 0:
        return value
    of_numpy = getattr(getattr(value, "dtype", None), "kind", "f") in "biuf"
    if not of_numpy or getattr(value, "requires_grad", False) or getattr(value, "is_meta", False):
        return value
    item = getattr(value, "item", None)
    return item() if callable(item) else value


def _range(least: int | None, most: int | None) -> str:
    if least is None and most is None:
        return ""
    if most is None:
        return f" of at least {least}"
    return f" of at most {most}" if least is None else f" from {least} to {most}"
