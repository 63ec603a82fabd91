"""The protocol of every model: represent once, then one head for each task that is asked for."""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence, Set
from typing import Any, ClassVar

from torch import nn

from polytask._checks import is_integer
from polytask._errors import UserError
from polytask._tasks import TaskModules, check_known

Heads = Mapping[str, nn.Module] | Sequence[nn.Module] | nn.ModuleDict | nn.ModuleList
Tasks = Sequence[str] | Set[str] | str | int | None


class MultiTaskModel(nn.Module, ABC):
    """A model that turns an input into a representation, and that into one output per task.

    A subclass says how to represent. Where tasks have representations of their own (experts, adapters,
    branches), it computes those of the ``tasks`` it is given only and overrides `for_task` to pick one.

    Args:
        heads: One module per task. A dict names the tasks; the tasks of a list are called ``task0``,
            ``task1`` and so on.

    Raises:
        UserError: Where there is no head, a head is not a module, or a name may not name a task.

    Example:
        >>> import torch
        >>> class Scaled(MultiTaskModel):
        ...     def represent(self, x, tasks=None):
        ...         return 2 * x
        >>> model = Scaled({"size": torch.nn.Linear(3, 1), "kind": torch.nn.Linear(3, 4)})
        >>> {task: tuple(output.shape) for task, output in model(torch.rand(5, 3)).items()}
        {'size': (5, 1), 'kind': (5, 4)}
        >>> model(torch.rand(5, 3), 1).shape
        torch.Size([5, 4])
    """

    heads: TaskModules
    heads_argument: ClassVar[str] = "heads"
    """What a subclass calls its heads, for messages."""

    def __init__(self, heads: Heads) -> None:
        super().__init__()
        self.named = isinstance(heads, Mapping | nn.ModuleDict)
        self.heads = TaskModules(_by_task(heads, self.heads_argument), self.heads_argument)

    @property
    def task_names(self) -> tuple[str, ...]:
        """The tasks, in the order of the heads.

        Example:
            >>> from torch.nn import Linear
            >>> from polytask.models import Separate
            >>> Separate([Linear(2, 1), Linear(2, 1)]).task_names
            ('task0', 'task1')
        """
        return tuple(self.heads)

    @abstractmethod
    def represent(self, x: Any, tasks: Sequence[str] | None = None) -> Any:
        """What the backbone hands to the heads.

        Args:
            x: A batch of inputs.
            tasks: The tasks it is needed for; all where None.
        """

    def for_task(self, representation: Any, task: str) -> Any:
        """The part of a representation that goes to a task's head; here, all of it.

        Args:
            representation: What `represent` returned.
            task: The name of one of the tasks it was computed for.
        """
        return representation

    def forward(self, x: Any, tasks: Tasks = None) -> Any:
        """The outputs of the tasks; only their heads run.

        Args:
            x: A batch of inputs.
            tasks: None for all tasks; a list or set of names; or one task by its name or by its place, a
                Python int.

        Returns:
            A dict by task, in the order of the heads. One output, not in a dict, where ``tasks`` is a single
            name or an int. A list in order where ``tasks`` is None and the heads were given as a list.

        Raises:
            UserError: Where a task is unknown or out of range, or none is named.
        """
        names = self._choose(tasks)
        representation = self.represent(x, names)
        outputs = {name: self.heads[name](self.for_task(representation, name)) for name in names}
        if isinstance(tasks, str) or is_integer(tasks):
            return outputs[names[0]]
        return outputs if self.named or tasks is not None else list(outputs.values())

    def _choose(self, tasks: Tasks) -> tuple[str, ...]:
        names = self.task_names
        if tasks is None:
            return names
        if is_integer(tasks):
            if not 0 <= tasks < len(names):
                fix = f"Tasks: {', '.join(f'{index} ({name})' for index, name in enumerate(names))}"
                raise UserError("tasks", f"a task id is at least 0 and below {len(names)}", tasks, fix)
            return (names[tasks],)
        if not isinstance(tasks, Sequence | Set):
            fix = "Pass names, one name or a Python int"
            raise UserError("tasks", "must name tasks of the model", f"a {type(tasks).__name__}", fix)
        chosen = (tasks,) if isinstance(tasks, str) else tuple(tasks)
        check_known(chosen, names, "tasks")
        if not chosen:
            raise UserError("tasks", "needs at least one task", "none", "Pass None for all tasks")
        return tuple(name for name in names if name in chosen)


class ByTask(MultiTaskModel):
    """A model whose representation is a dict with an entry for each task."""

    def for_task(self, representation: Any, task: str) -> Any:
        """The task's entry.

        Args:
            representation: What `represent` returned.
            task: The name of one of the tasks it was computed for.
        """
        return representation[task]


def _by_task(heads: object, where: str) -> dict[str, nn.Module]:
    if isinstance(heads, Mapping | nn.ModuleDict):
        return dict(heads.items())
    if isinstance(heads, Sequence | nn.ModuleList) and not isinstance(heads, str):
        return {f"task{index}": head for index, head in enumerate(heads)}
    raise UserError(
        where, "must be a dict of modules by task, or a list of modules", f"a {type(heads).__name__}"
    )
