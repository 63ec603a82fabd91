"""Numbers that the user gives, alone or by task."""

import math
import numbers
from collections.abc import Iterable, Mapping
from typing import Any

from polytask._errors import UserError
from polytask._tasks import check_known


def values_by_task(
    given: Mapping[str, float] | None, names: Iterable[str], where: str, default: float
) -> list[float]:
    """A number for each task, in order.

    Args:
        given: Numbers by task; tasks that are not in it take the default.
        names: All tasks, in order.
        where: The argument they came from, for the message.
        default: What the other tasks take.

    Raises:
        UserError: If a name is not a task, or a value is not a finite number.

    Example:
        >>> values_by_task({"depth": 2}, ["digit", "depth"], "bounds", 0.0)
        [0.0, 2.0]
    """
    names, given = tuple(names), {} if given is None else given
    if not isinstance(given, Mapping):
        raise UserError(where, "is a mapping from task to number", repr(given))
    check_known(given, names, where)
    for name, value in given.items():
        check_number(value, f"{where}.{name}")
    return [float(given.get(name, default)) for name in names]


def check_number(
    value: Any,
    where: str,
    *,
    above: float = -math.inf,
    least: float = -math.inf,
    most: float = math.inf,
    below: float = math.inf,
) -> float:
    """The value as a float, once it is a finite number in its range.

    Args:
        value: What was given.
        where: The argument it came from, for the message.
        above: What it must be greater than.
        least: The smallest it may be.
        most: The greatest it may be.
        below: What it must be less than.

    Raises:
        UserError: With the range.

    Example:
        >>> check_number(2, "temperature", above=0)
        2.0
    """
    number = isinstance(value, numbers.Real) and not isinstance(value, bool)
    if not number or not math.isfinite(value) or not (above < value < below and least <= value <= most):
        limits = [("above", above), ("at least", least), ("at most", most), ("below", below)]
        rules = [f"{word} {limit:g}" for word, limit in limits if math.isfinite(limit)]
        raise UserError(where, f"must be a finite number {' and '.join(rules)}".rstrip(), repr(value))
    return float(value)
