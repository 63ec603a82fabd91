"""One network per task, nothing shared."""

from collections.abc import Sequence
from typing import Any

from polytask.models._base import Heads, MultiTaskModel


class Separate(MultiTaskModel):
    """A network for each task: the baseline that sharing is compared with.

    ``output[t] = task_networks[t](x)``. The input itself is the representation, and the networks are the
    heads.

    Args:
        task_networks: One network per task. A dict names the tasks; the tasks of a list are called ``task0``,
            ``task1`` and so on.

    Shape:
        - Input: what every network takes.
        - Output: for each task, what its network returns; see `MultiTaskModel.forward`.

    Raises:
        UserError: If there is no network, one is not a module, or a name is not a valid task name.

    Example:
        >>> import torch
        >>> from polytask.models import MLP, Separate
        >>> model = Separate({"digit": MLP(64, [32], 10), "odd": MLP(64, [8], 2)})
        >>> {task: tuple(output.shape) for task, output in model(torch.rand(8, 64)).items()}
        {'digit': (8, 10), 'odd': (8, 2)}
    """

    heads_argument = "task_networks"

    def __init__(self, task_networks: Heads) -> None:
        super().__init__(task_networks)

    def represent(self, x: Any, tasks: Sequence[str] | None = None) -> Any:
        """The input: the tasks share nothing else.

        Args:
            x: A batch of inputs.
            tasks: The tasks it is needed for; makes no difference here.
        """
        return x
