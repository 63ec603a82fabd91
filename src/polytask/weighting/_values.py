"""Numbers that the user gives by task."""

from collections.abc import Iterable, Mapping

from polytask._checks import check_number
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
        UserError: Where a name is not a task, or a value is not a finite number.

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
