"""Checks of numbers among arguments, single or by task."""

import math
from collections.abc import Iterable, Mapping
from typing import Any

from polytask._checks import is_finite
from polytask._errors import UserError
from polytask._tasks import check_known


def values_by_task(
    given: Mapping[str, float] | None, names: Iterable[str], where: str, default: float
) -> list[float]:
    """A number for each task, in order.

    Args:
        given: Numbers by task; the default is used for tasks that are not in it.
        names: All tasks, in order.
        where: The argument's name, for messages.
        default: The number for the other tasks.

    Raises:
        UserError: If a name is not a task, or a value is not a finite number.

    Example:
        >>> values_by_task({"depth": 2}, ["digit", "depth"], "bounds", 0.0)
        [0.0, 2.0]
    """
    names, given = tuple(names), {} if given is None else given
    if not isinstance(given, Mapping):
        raise UserError(where, "must be a mapping from task to number", repr(given))
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
    """The value as a float, after it was checked to be a finite number in its range.

    Args:
        value: The value.
        where: The argument's name, for messages.
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
    if not is_finite(value) or not (above < value < below and least <= value <= most):
        limits = [("above", above), ("at least", least), ("at most", most), ("below", below)]
        rules = [f"{word} {limit:g}" for word, limit in limits if math.isfinite(limit)]
        raise UserError(where, f"must be a finite number {' and '.join(rules)}".rstrip(), repr(value))
    return float(value)
