"""The protocol of every model: one representation, then one head for each task that is requested."""

import sys
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence, Set
from typing import Any, ClassVar

from torch import Tensor, nn

from polytask._checks import is_integer
from polytask._errors import UserError
from polytask._tasks import TaskModules, check_known

Heads = Mapping[str, nn.Module] | Sequence[nn.Module] | nn.ModuleDict | nn.ModuleList
Tasks = Sequence[str] | Set[str] | str | int | None


class MultiTaskModel(nn.Module, ABC):
    """A model that turns an input into a representation, and that into one output per task.

    A subclass implements `represent`. If tasks have different representations (experts, adapters, branches),
    it computes only those of the ``tasks`` that are passed, and overrides `for_task` to select one.

    Args:
        heads: One module per task. A dict names the tasks; the tasks of a list are called ``task0``,
            ``task1`` and so on.

    Raises:
        UserError: If there is no head, a head is not a module, or a name is not a valid task name.

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
    """The name of the argument with the heads, for messages."""

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
        """What the backbone passes to the heads.

        Args:
            x: A batch of inputs.
            tasks: The tasks it is needed for; all if None.
        """

    def for_task(self, representation: Any, task: str) -> Any:
        """The part of a representation that a task's head receives; here, all of it.

        Args:
            representation: What `represent` returned.
            task: The name of one of the tasks it was computed for.
        """
        return representation

    def forward(self, x: Any, tasks: Tasks = None) -> Any:
        """The outputs of the tasks; only their heads run.

        Args:
            x: A batch of inputs.
            tasks: None for all tasks; a list or set of names; or one task by its name or by its index, an
                integer.

        Returns:
            A dict by task, in the order of the heads. One output, not in a dict, if ``tasks`` is a single
            name or an integer. A list in order if ``tasks`` is None and the heads were given as a list.

        Raises:
            UserError: If a task is unknown or out of range, or none is named.
        """
        names = self._choose(tasks)
        representation = self.represent(x, names)
        outputs = {name: self.heads[name](self.for_task(representation, name)) for name in names}
        if tasks is None:
            return outputs if self.named else list(outputs.values())
        return (
            outputs if isinstance(tasks, Sequence | Set) and not isinstance(tasks, str) else outputs[names[0]]
        )

    def _choose(self, tasks: Tasks) -> tuple[str, ...]:
        names = self.task_names
        if tasks is None:
            return names
        if not isinstance(tasks, Sequence | Set):
            return (self._at(tasks),)
        chosen = (tasks,) if isinstance(tasks, str) else tuple(tasks)
        check_known(chosen, names, "tasks")
        if not chosen:
            raise UserError("tasks", "at least one task is required", "none", "Pass None for all tasks")
        return tuple(name for name in names if name in chosen)

    def _at(self, index: object) -> str:
        names = self.task_names
        # Reading a tensor would synchronise with its device at each call.
        if isinstance(index, Tensor) or not is_integer(index, -sys.maxsize):
            fix = "Pass names, one name or an integer"
            raise UserError("tasks", "must name tasks of the model", f"a {type(index).__name__}", fix)
        if not 0 <= index < len(names):
            fix = f"Tasks: {', '.join(f'{number} ({name})' for number, name in enumerate(names))}"
            raise UserError("tasks", f"a task id must be at least 0 and below {len(names)}", index, fix)
        return names[index]


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
