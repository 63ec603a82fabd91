"""One backbone, any heads."""

from collections.abc import Sequence
from typing import Any

from torch import nn

from polytask.models._argument_checks import check_module
from polytask.models._base import Heads, MultiTaskModel


class MultiHead(MultiTaskModel):
    """A backbone, and for each task any module that takes what the backbone returns.

    ``output[t] = heads[t](backbone(x))``. The representation is passed to the heads unchanged: a tensor, a
    tuple of feature maps, a dict.

    Args:
        backbone: The part that all tasks share.
        heads: One module per task. A dict names the tasks; the tasks of a list are called ``task0``,
            ``task1`` and so on.

    Shape:
        - Input: what the backbone takes.
        - Output: for each task, what its head returns; see `MultiTaskModel.forward`.

    Raises:
        UserError: If the backbone or a head is not a module, there is no head, or a name is not a valid task
            name.

    Example:
        >>> import torch
        >>> from polytask.models import MLP, MultiHead
        >>> heads = {"digit": torch.nn.Linear(16, 10), "odd": torch.nn.Linear(16, 2)}
        >>> model = MultiHead(MLP(64, [32], 16), heads)
        >>> outputs = model(torch.rand(8, 64), tasks=["odd"])
        >>> {task: tuple(output.shape) for task, output in outputs.items()}
        {'odd': (8, 2)}
    """

    def __init__(self, backbone: nn.Module, heads: Heads) -> None:
        super().__init__(heads)
        self.backbone = check_module(backbone, "backbone")

    def represent(self, x: Any, tasks: Sequence[str] | None = None) -> Any:
        """What the backbone returns; the same for all tasks.

        Args:
            x: A batch of inputs.
            tasks: The tasks it is needed for; makes no difference here.
        """
        return self.backbone(x)
