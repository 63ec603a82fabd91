"""Task names, and modules stored by task."""

from collections.abc import ItemsView, Iterable, Iterator, Mapping
from typing import Literal

from torch import nn

from polytask._checks import is_name
from polytask._errors import UserError, hint

TaskType = Literal["regression", "classification"]
TASK_TYPES: tuple[TaskType, ...] = ("regression", "classification")
SHARING = "sharing"
RESERVED = ("loss", "total", SHARING, "train", "val", "test", "predict", "step", "epoch")
PREFIX = "task_"


def check_task_names(names: Iterable[str], where: str = "tasks") -> tuple[str, ...]:
    """The names as a tuple, if each of them is a valid task name.

    Args:
        names: Task names.
        where: The argument they came from, for the message.

    Raises:
        UserError: If there is no name, or a name is not ``[A-Za-z][A-Za-z0-9_]*``, is reserved for
            log keys, or occurs twice.

    Example:
        >>> check_task_names(["digit", "parity"])
        ('digit', 'parity')
    """
    names = tuple(names)
    if not names:
        raise UserError(where, "needs at least one task", "none")
    for name in names:
        if not is_name(name):
            raise UserError(
                where,
                "a task name must be a letter followed by letters, digits or underscores",
                repr(name),
                "Rename the task",
            )
        if name in RESERVED:
            raise UserError(where, f"'{name}' is reserved for log keys", None, "Rename the task")
    if len(set(names)) < len(names):
        twice = next(name for name in names if names.count(name) > 1)
        raise UserError(where, "task names must be unique", f"'{twice}' twice")
    return names


def check_known(given: Iterable[str], tasks: Iterable[str], where: str) -> None:
    """Raise if a name is not one of the tasks.

    Raises:
        UserError: With the nearest task name.

    Example:
        >>> check_known(["digit"], ["digit", "parity"], "metrics")
    """
    tasks = tuple(tasks)
    for name in given:
        if name not in tasks:
            raise UserError(where, f"no task is called '{name}'", None, hint(str(name), tasks, "Tasks"))


class TaskModules(nn.Module):
    """Modules by task name, in order; a task may have any name, ``type`` and ``keys`` too.

    Stored under ``task_<name>``, so that no name collides with an attribute of `torch.nn.Module`.

    Args:
        modules: One module per task.

    Raises:
        UserError: If a name is no valid task name, or a value is not a module.

    Example:
        >>> heads = TaskModules({"type": nn.Linear(2, 1)})
        >>> "type" in heads, heads["type"].out_features, list(heads.state_dict())
        (True, 1, ['task_type.weight', 'task_type.bias'])
    """

    def __init__(self, modules: Mapping[str, nn.Module], where: str = "tasks") -> None:
        super().__init__()
        for name in check_task_names(modules, where):
            module = modules[name]
            if not isinstance(module, nn.Module):
                raise UserError(
                    f"{where}.{name}", "must be a torch.nn.Module", type(module).__name__, "Pass an instance"
                )
            self.add_module(PREFIX + name, module)

    def __getitem__(self, name: str) -> nn.Module:
        module = self._modules[PREFIX + name]
        assert module is not None
        return module

    def __contains__(self, name: object) -> bool:
        return isinstance(name, str) and PREFIX + name in self._modules

    def __iter__(self) -> Iterator[str]:
        return (name.removeprefix(PREFIX) for name in self._modules)

    def __len__(self) -> int:
        return len(self._modules)

    def items(self) -> ItemsView[str, nn.Module]:
        """Pairs of task name and module."""
        return {name: self[name] for name in self}.items()
