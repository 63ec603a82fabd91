"""Checks of numbers among arguments, single or by task."""

from collections.abc import Iterable, Mapping

from polytask._checks import check_number
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
