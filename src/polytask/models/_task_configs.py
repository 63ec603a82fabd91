"""The options of one task in a factory's ``task_configs``."""

from collections.abc import Callable, Mapping
from typing import Any, TypeVar

from torch import nn

from polytask._errors import UserError, hint
from polytask.models._argument_checks import check_mapping

Made = TypeVar("Made", bound=nn.Module)
OPTIONS = ("output_dim", "hidden_dims", "activation", "dropout")


def from_config(make: Callable[..., Made], task: str, config: Mapping[str, Any]) -> Made:
    """The module that ``make`` returns for a task's options.

    Args:
        make: A callable with the options as keyword arguments.
        task: The task, for messages.
        config: ``output_dim``, and optionally the other `OPTIONS`.

    Raises:
        UserError: If an option is unknown, missing or cannot be used, with the task's name.

    Example:
        >>> from functools import partial
        >>> from polytask.models import TaskHead
        >>> from_config(partial(TaskHead, 4), "digit", {"output_dim": 10}).output_dim
        10
    """
    where = f"task_configs.{task}"
    for option in check_mapping(config, where):
        if option not in OPTIONS:
            rule = "must be an option of a task"
            raise UserError(where, rule, repr(option), hint(str(option), OPTIONS))
    if "output_dim" not in config:
        raise UserError(f"{where}.output_dim", "is required", "nothing", "Set the task's number of outputs")
    try:
        return make(**config)
    except UserError as error:
        raise error.at(f"{where}.{error.where}") from error
