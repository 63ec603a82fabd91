"""Low-rank adapters by task."""

import math
from collections.abc import Sequence
from copy import deepcopy
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.parameter import UninitializedParameter

from polytask._checks import check_number
from polytask._errors import UserError, hint
from polytask._tasks import TaskModules, check_known
from polytask.models._argument_checks import check_dropout, check_module, check_size
from polytask.models._base import ByTask, Heads
from polytask.models._conditioned import named, one_by_one
from polytask.models._multi_head import MultiHead
from polytask.models._taps import modules_by_name

Layer = nn.Linear | nn.Conv1d | nn.Conv2d | nn.Conv3d
_CONVOLUTIONS = (F.conv1d, F.conv2d, F.conv3d)


class LoRA(ByTask):
    r"""A backbone, frozen or trained, whose layers each task changes by matrices of low rank.

    A target layer with weights *W*, a convolution's flattened to ``(out, in · kernel)``, is for task *t*

    .. math:: W + \tfrac{\alpha}{r} B_t A_t, \qquad B_t \in \mathbb{R}^{\text{out} \times r}, \;
        A_t \in \mathbb{R}^{r \times \text{in}}.

    B starts at 0, so that the model starts as the plain backbone. The backbone runs once for each requested
    task; `merged` returns the network of one task without adapters, at the cost of the backbone. In training,
    batch norm layers in it process every batch once per task, even if it is frozen.

    Args:
        backbone: The part that all tasks share.
        tasks: One head per task. A dict names the tasks; the tasks of a list are called ``task0``, ``task1``
            and so on.
        rank: The rank r.
        targets: Names of `torch.nn.Linear` and convolution layers of the backbone, or the ends of such names:
            ``query`` means every layer of this name, in any block.
        alpha: The scale; None means r, a factor of 1.
        dropout: Probability, in [0, 1), of zeroing a value that enters an adapter.
        train_backbone: Whether the backbone is trained too; otherwise it is frozen.

    Shape:
        - Input: what the backbone takes.
        - Output: for each task, what its head returns; see `MultiTaskModel.forward`.

    Raises:
        UserError: If a target names no layer or another kind of layer, its shape is not known yet, the
            rank is above the layer's size, or a target is never called.

    Example:
        >>> from polytask.models import LoRA, SimpleCNN, TaskHead
        >>> heads = {"digit": TaskHead(16, 10), "odd": TaskHead(16, 2)}
        >>> model = LoRA(SimpleCNN(1, 16, 8), heads, rank=4, targets=["features.3", "classifier.0"])
        >>> model(torch.rand(8, 1, 8, 8), "odd").shape
        torch.Size([8, 2])
        >>> model.parameter_counts()
        {'digit': 3114, 'odd': 2978}

    Reference:
        Hu, Shen, Wallis, Allen-Zhu, Li, Wang, Wang, Chen. LoRA: Low-Rank Adaptation of Large Language Models.
        ICLR 2022, equation 3.

    Deviations:
        A is initialised as a linear layer of torch, uniform and not Gaussian, as in the authors' code.
    """

    heads_argument = "tasks"

    def __init__(
        self,
        backbone: nn.Module,
        tasks: Heads,
        rank: int,
        targets: Sequence[str],
        *,
        alpha: float | None = None,
        dropout: float = 0.0,
        train_backbone: bool = False,
    ) -> None:
        super().__init__(tasks)
        self.backbone = check_module(backbone, "backbone")
        self.rank = check_size(rank, "rank")
        self.targets = find_targets(backbone, targets)
        scale = _scale(alpha, rank)
        probability = check_dropout(dropout)
        layers = {name: _adaptable(backbone.get_submodule(name), name, rank) for name in self.targets}
        self.adapters = TaskModules(
            {
                task: nn.ModuleList(Adapter(layer, rank, scale, probability) for layer in layers.values())
                for task in self.task_names
            }
        )
        if not train_backbone:
            backbone.requires_grad_(False)

    def represent(self, x: Any, tasks: Sequence[str] | None = None) -> dict[str, Any]:
        """By task the output of the backbone with the task's adapters.

        Args:
            x: A batch of inputs.
            tasks: The tasks it is needed for; all if None.
        """
        chosen = self.task_names if tasks is None else tasks
        units = {task: named(self.targets, self.adapters[task]) for task in chosen}
        return one_by_one(self.backbone, x, units, "target")

    @torch.no_grad()
    def merged(self, task: str) -> MultiHead:
        """A copy of one task's network with its adapters added to the weights.

        Args:
            task: The task's name.

        Raises:
            UserError: If there is no such task.
        """
        check_known([task], self.task_names, "task")
        backbone = deepcopy(self.backbone)
        for name, adapter in named(self.targets, self.adapters[task]).items():
            layer, trained = backbone.get_submodule(name), adapter
            assert isinstance(layer, Layer)
            assert isinstance(trained, Adapter)
            weight = layer.weight + trained.change().view(layer.weight.shape)
            layer.weight = nn.Parameter(weight, layer.weight.requires_grad)
        return MultiHead(backbone, {task: deepcopy(self.heads[task])}).train(self.training)

    def parameter_counts(self) -> dict[str, int]:
        """The number of parameters in each task's adapters and head."""
        return {
            task: sum(p.numel() for part in (self.adapters[task], head) for p in part.parameters())
            for task, head in self.heads.items()
        }

    def extra_repr(self) -> str:
        """The rank and each task's number of parameters."""
        counts = ", ".join(f"{task} {count:,}" for task, count in self.parameter_counts().items())
        return f"rank={self.rank}, parameters by task: {counts}"


class Adapter(nn.Module):
    """The change of one layer for one task.

    Args:
        layer: The layer.
        rank: The rank of the change.
        scale: Its factor.
        dropout: Probability of zeroing a value that enters it.
    """

    def __init__(self, layer: Layer, rank: int, scale: float, dropout: float) -> None:
        super().__init__()
        self.scale, self.dropout = scale, dropout
        weight = layer.weight
        self.down = nn.Parameter(weight.new_empty(rank, *weight.shape[1:]))
        self.up = nn.Parameter(weight.new_zeros(len(weight), rank))
        nn.init.kaiming_uniform_(self.down, a=math.sqrt(5))

    def change(self) -> Tensor:
        """What is added to the layer's weights, flattened to ``(out, in · kernel)``."""
        return self.scale * (self.up @ self.down.flatten(1))

    def forward(self, module: Layer, x: Tensor, output: Tensor) -> Tensor:
        """The layer's output with the change.

        Args:
            module: The layer.
            x: Its input.
            output: Its output.
        """
        x = F.dropout(x, self.dropout, self.training)
        if isinstance(module, nn.Linear):
            return output + self.scale * F.linear(F.linear(x, self.down), self.up)
        # The layer's own call pads as it does for its weights.
        if module.groups > 1:
            changed: Tensor = module._conv_forward(x, self.change().view(module.weight.shape), None)
            return output + changed
        hidden = module._conv_forward(x, self.down, None)
        dimensions = self.down.dim() - 2
        pointwise = self.up.view(*self.up.shape, *([1] * dimensions))
        return output + self.scale * _CONVOLUTIONS[dimensions - 1](hidden, pointwise)


def find_targets(backbone: nn.Module, targets: Sequence[str]) -> tuple[str, ...]:
    """The names of the layers that targets mean, in the backbone's order.

    Raises:
        UserError: If there is no target, or one matches no module, with the nearest name.

    Example:
        >>> blocks = [nn.ModuleDict({"query": nn.Linear(2, 2), "key": nn.Linear(2, 2)}) for _ in range(2)]
        >>> find_targets(nn.ModuleList(blocks), ["query"])
        ('0.query', '1.query')
    """
    if isinstance(targets, str) or not isinstance(targets, Sequence) or not targets:
        raise UserError("targets", "must be a list of module names", repr(targets), f"Write [{targets}]")
    known = modules_by_name(backbone)
    found: set[nn.Module] = set()
    for target in targets:
        fitting = [target] if target in known else [name for name in known if name.endswith(f".{target}")]
        if not fitting:
            layers = [name for name, module in known.items() if isinstance(module, Layer)]
            names = dict.fromkeys([*layers, *(name.rpartition(".")[2] for name in layers)])
            fix = hint(str(target), names, "Layers")
            rule = f"must be a module of {type(backbone).__name__}"
            raise UserError("targets", rule, repr(target), fix)
        found.update(known[name] for name in fitting)
    # A module with two names has one adapter, by its first name.
    return tuple(name for name, module in backbone.named_modules() if module in found)


def _adaptable(layer: nn.Module, name: str, rank: int) -> Layer:
    where = f"targets.{name}"
    if not isinstance(layer, Layer):
        raise UserError(where, "must be a Linear or a convolution", f"a {type(layer).__name__}")
    if isinstance(layer.weight, UninitializedParameter):
        found = f"a {type(layer).__name__} before its first forward"
        raise UserError(where, "must be a layer of a known shape", found)
    size = min(len(layer.weight), layer.weight[0].numel())
    if rank > size:
        shape = f"{len(layer.weight)} x {layer.weight[0].numel()}"
        rule = f"the rank must be at most the layer's size, {size}"
        raise UserError(where, rule, f"rank {rank} for {shape}")
    return layer


def _scale(alpha: float | None, rank: int) -> float:
    if alpha is None:
        return 1.0
    return check_number(alpha, "alpha", above=0) / rank
