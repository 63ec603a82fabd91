"""Feature-wise linear modulation by task."""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from polytask._tasks import TaskModules
from polytask.models._argument_checks import check_module
from polytask.models._base import ByTask, Heads
from polytask.models._conditioned import named, one_by_one
from polytask.models._taps import check_channels, check_taps, check_width


class FiLM(ByTask):
    r"""A backbone whose features each task scales and shifts, channel by channel.

    Behind each tap, with learned vectors :math:`\gamma` and :math:`\beta` of task *t*,

    .. math:: h \leftarrow \gamma_t \odot h + \beta_t.

    It starts with :math:`\gamma = 1` and :math:`\beta = 0`, the plain backbone. The backbone runs once for
    each requested task, so that batch norm layers in it process every batch once per task.

    Args:
        backbone: The part that all tasks share.
        heads: One module per task. A dict names the tasks; the tasks of a list are called ``task0``,
            ``task1`` and so on.
        taps: Channels of what each tapped module of the backbone returns, by its name, such as
            ``{"layer1": 64}``; names as `torch.nn.Module.named_modules` gives them.
        channel_dim: The dimension of the channels: 1 for images, -1 for tokens.

    Shape:
        - Input: what the backbone takes.
        - Output: for each task, what its head returns; see `MultiTaskModel.forward`.

    Raises:
        UserError: If a tap is not a module of the backbone or is never called, or its channels differ.

    Example:
        >>> from polytask.models import FiLM, SimpleCNN, TaskHead
        >>> heads = {"digit": TaskHead(16, 10), "odd": TaskHead(16, 2)}
        >>> model = FiLM(SimpleCNN(1, 16, 8), heads, taps={"features.0": 32, "features.3": 64})
        >>> model(torch.rand(8, 1, 8, 8), "odd").shape
        torch.Size([8, 2])

    Reference:
        Perez, Strub, de Vries, Dumoulin, Courville. FiLM: Visual Reasoning with a General Conditioning Layer.
        AAAI 2018, equation 2.

    Deviations:
        The condition is the task: scale and shift are learned by task, not computed by a network.
    """

    def __init__(
        self, backbone: nn.Module, heads: Heads, taps: Mapping[str, int], *, channel_dim: int = 1
    ) -> None:
        super().__init__(heads)
        self.backbone = check_module(backbone, "backbone")
        channels = check_channels(taps)
        self.taps = check_taps(backbone, taps)
        self.scales_and_shifts = TaskModules(
            {
                task: nn.ModuleList(ScaleAndShift(tap, channels[tap], channel_dim) for tap in self.taps)
                for task in self.task_names
            }
        )

    def represent(self, x: Any, tasks: Sequence[str] | None = None) -> dict[str, Any]:
        """By task the output of the backbone.

        Args:
            x: A batch of inputs.
            tasks: The tasks it is needed for; all if None.
        """
        chosen = self.task_names if tasks is None else tasks
        units = {task: named(self.taps, self.scales_and_shifts[task]) for task in chosen}
        return one_by_one(self.backbone, x, units, "tap")


class ScaleAndShift(nn.Module):
    """A scale and a shift for each channel of one tap, of one task.

    Args:
        tap: The tap, for messages.
        channels: The number of channels.
        channel_dim: The dimension of the channels.
    """

    def __init__(self, tap: str, channels: int, channel_dim: int) -> None:
        super().__init__()
        self.tap, self.channel_dim = tap, channel_dim
        self.scale = nn.Parameter(torch.ones(channels))
        self.shift = nn.Parameter(torch.zeros(channels))

    def forward(self, module: nn.Module, x: Any, output: Tensor) -> Tensor:
        """The features, scaled and shifted.

        Args:
            module: The tapped module.
            x: Its input.
            output: Its output.
        """
        check_width(output, self.channel_dim, self.tap, len(self.scale))
        shape = [1] * output.dim()
        shape[self.channel_dim] = len(self.scale)
        return output * self.scale.view(shape) + self.shift.view(shape)
