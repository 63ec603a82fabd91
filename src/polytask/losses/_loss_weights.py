"""Fixed factors of the tasks' losses."""

from collections.abc import Mapping, Sequence

from polytask._errors import UserError
from polytask._tasks import check_known
from polytask.weighting._fixed import check_weights


def loss_weights_of(
    given: Mapping[str, float] | Sequence[float] | None, names: tuple[str, ...]
) -> dict[str, float]:
    """Factors of the tasks' losses, by task.

    Args:
        given: Factors by task, 1 for the others; or a list in task order; None for 1 for all.
        names: All tasks, in order.

    Raises:
        UserError: If a name is not a task, or a factor is invalid.

    Example:
        >>> loss_weights_of({"height": 2.0}, ("digit", "height"))
        {'digit': 1.0, 'height': 2.0}
    """
    given = {} if given is None else given
    if not isinstance(given, Mapping):
        if not isinstance(given, (list, tuple)):
            raise UserError("loss_weights", "must be a mapping from task to weight, or a list", repr(given))
        if len(given) != len(names):
            raise UserError(
                "loss_weights",
                f"must have one weight for each of the tasks {', '.join(names)}",
                f"{len(given)} weights",
            )
        given = dict(zip(names, given, strict=True))
    check_known(given, names, "loss_weights")
    weights = {**dict.fromkeys(names, 1.0), **check_weights(given, "loss_weights")}
    if not any(weights.values()):
        raise UserError("loss_weights", "at least one weight must be above 0", weights)
    return weights
