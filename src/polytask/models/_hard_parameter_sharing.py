"""Hard parameter sharing, and its factory."""

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

from torch import nn

from polytask._errors import UserError
from polytask._tasks import check_task_names
from polytask.models._argument_checks import check_mapping, check_module, check_size, is_size
from polytask.models._base import Heads
from polytask.models._multi_head import MultiHead
from polytask.models._task_configs import from_config
from polytask.models._task_head import TaskHead


class HardParameterSharing(MultiHead):
    """A backbone that all tasks share, optionally a shared layer on top of it, and one head per task.

    ``output[t] = heads[t](h)`` with ``h = backbone(x)``, or, with ``shared_head_dim``,
    ``h = ReLU(W backbone(x) + b)``.

    Args:
        backbone: The part that all tasks share.
        task_heads: One module per task. A dict names the tasks; the tasks of a list are called ``task0``,
            ``task1`` and so on.
        shared_head_dim: Units of a linear layer with ReLU between backbone and heads; None means no such
            layer. The heads then take this many features.
        representation_dim: Features that the backbone returns; None means ``backbone.output_dim``. Required
            for the shared layer if the backbone has no such attribute.

    Shape:
        - Input: what the backbone takes.
        - Output: for each task, what its head returns; see `MultiTaskModel.forward`.
        - The backbone returns (..., features) if there is a shared layer.

    Raises:
        UserError: If the backbone or a head is not a module, there is no head, a name is not a valid task
            name, the representation's size is required and unknown, or a `TaskHead` takes another size.

    Example:
        >>> import torch
        >>> from polytask.models import MLP, HardParameterSharing, TaskHead
        >>> model = HardParameterSharing(
        ...     MLP(64, [32], 16), {"digit": TaskHead(20, 10), "odd": TaskHead(20, 2)}, shared_head_dim=20
        ... )
        >>> {task: tuple(output.shape) for task, output in model(torch.rand(8, 64)).items()}
        {'digit': (8, 10), 'odd': (8, 2)}

    Reference:
        Caruana, "Multitask Learning", Machine Learning 28, 1997.
    """

    heads_argument = "task_heads"

    def __init__(
        self,
        backbone: nn.Module,
        task_heads: Heads,
        shared_head_dim: int | None = None,
        *,
        representation_dim: int | None = None,
    ) -> None:
        super().__init__(backbone, task_heads)
        features = _features(backbone, representation_dim)
        self.shared_head: nn.Sequential | None = None
        if shared_head_dim is not None:
            check_size(shared_head_dim, "shared_head_dim")
            self.shared_head = nn.Sequential(TaskHead(_known(features), shared_head_dim), nn.ReLU())
            features = shared_head_dim
        self._check_heads(features)

    def represent(self, x: Any, tasks: Sequence[str] | None = None) -> Any:
        """What the backbone, or the shared layer on top of it, returns; the same for all tasks.

        Args:
            x: A batch of inputs.
            tasks: The tasks it is needed for; makes no difference here.
        """
        representation = super().represent(x, tasks)
        return representation if self.shared_head is None else self.shared_head(representation)

    def _check_heads(self, features: int | None) -> None:
        for task, head in self.heads.items():
            if features is not None and isinstance(head, TaskHead) and head.input_dim != features:
                raise UserError(
                    f"task_heads.{task}",
                    f"input_dim must be {features}, the features of the representation",
                    head.input_dim,
                )


def create_hard_sharing_model(
    backbone: nn.Module,
    task_configs: Mapping[str, Mapping[str, Any]],
    shared_head_dim: int | None = None,
    representation_dim: int | None = None,
) -> HardParameterSharing:
    """A `HardParameterSharing` model with a `TaskHead` for each task, sized to fit.

    Args:
        backbone: The part that all tasks share.
        task_configs: For each task ``output_dim``, and optionally ``hidden_dims``, ``activation`` and
            ``dropout``: the arguments of `TaskHead`.
        shared_head_dim: Units of a linear layer with ReLU between backbone and heads; None means no such
            layer.
        representation_dim: Features that the backbone returns; None means ``backbone.output_dim``.

    Shape:
        - Input: what the backbone takes; it returns (..., features).
        - Output: (..., output_dim) for each task; see `MultiTaskModel.forward`.

    Raises:
        UserError: If the representation's size is unknown, or a task's configuration cannot be used.

    Example:
        >>> import torch
        >>> from polytask.models import MLP, create_hard_sharing_model
        >>> tasks = {"digit": {"output_dim": 10, "hidden_dims": [12]}, "odd": {"output_dim": 2}}
        >>> model = create_hard_sharing_model(MLP(64, [32], 16), tasks)
        >>> model(torch.rand(8, 64), "digit").shape
        torch.Size([8, 10])
    """
    check_module(backbone, "backbone")
    features = _known(_features(backbone, representation_dim))
    width = features if shared_head_dim is None else check_size(shared_head_dim, "shared_head_dim")
    tasks = check_task_names(check_mapping(task_configs, "task_configs"), "task_configs")
    heads = {task: from_config(partial(TaskHead, width), task, task_configs[task]) for task in tasks}
    return HardParameterSharing(backbone, heads, shared_head_dim, representation_dim=features)


def _features(backbone: nn.Module, representation_dim: int | None) -> int | None:
    if representation_dim is not None:
        return check_size(representation_dim, "representation_dim")
    features = getattr(backbone, "output_dim", None)
    return features if is_size(features) else None


def _known(features: int | None) -> int:
    if features is None:
        fix = "Pass representation_dim, the number of features it returns"
        rule = "must have an attribute output_dim, the size of its representation"
        raise UserError("backbone", rule, "no output_dim", fix)
    return features
