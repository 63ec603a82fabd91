"""Cross-stitch networks."""

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from polytask._checks import check_integer
from polytask.models._argument_checks import check_share
from polytask.models._base import Heads
from polytask.models._taps import Taps, check_channels, check_width
from polytask.models._towers import BackboneByTask, Mixing, Towers


class CrossStitch(Towers):
    r"""A backbone for each task; behind each tap, every tower continues with a mixture of all features.

    .. math:: \tilde x_t = \sum_s \alpha_{ts} x_s

    with :math:`\alpha` learned at each tap; :math:`\alpha = I` leaves the networks separate.

    Args:
        backbone: A module that is copied, with its weights, for each task; or by task modules that return
            features of the same shapes at the taps.
        heads: One module per task. A dict names the tasks; the tasks of a list are called ``task0``,
            ``task1`` and so on.
        taps: Names of the backbone's modules behind which features are mixed. A dict gives each its number
            of channels, and each channel has its own :math:`\alpha`.
        own: Initial :math:`\alpha_{tt}`; the other tasks share the remainder to 1 equally. 1 if there is only
            one task.
        channel_dim: The features' dimension that holds the channels; -1 for tokens. Used if ``taps`` is a
            dict.

    Shape:
        - Input: what the backbone takes.
        - Output: for each task, what its head returns; see `MultiTaskModel.forward`.
        - The tapped modules return one tensor.

    Raises:
        UserError: If a tap is not a module of the backbone, is not called or does not return one tensor, the
            towers' features differ in shape, or their channels differ from those given.

    Example:
        >>> import torch
        >>> from polytask.models import MLP, CrossStitch, TaskHead
        >>> heads = {"digit": TaskHead(16, 10), "odd": TaskHead(16, 2)}
        >>> model = CrossStitch(MLP(64, [32], 16), heads, taps=["layers.activation1"])
        >>> {task: tuple(output.shape) for task, output in model(torch.rand(8, 64)).items()}
        {'digit': (8, 10), 'odd': (8, 2)}
        >>> model.units[0].alpha.detach()
        tensor([[0.9000, 0.1000],
                [0.1000, 0.9000]])

    Reference:
        Misra, Shrivastava, Gupta, Hebert, "Cross-stitch Networks for Multi-task Learning", CVPR 2016,
        equation 1.

    Deviations:
        Any number of tasks, and any module with taps; the paper has two AlexNets.
    """

    def __init__(
        self, backbone: BackboneByTask, heads: Heads, taps: Taps, *, own: float = 0.9, channel_dim: int = 1
    ) -> None:
        check_share(own, "own")
        channel_dim = check_integer(channel_dim, "channel_dim")
        channels = check_channels(taps) if isinstance(taps, Mapping) else {}

        def unit(tap: str, tasks: Sequence[str]) -> Mixing:
            return _Stitch(tap, len(tasks), own, channels.get(tap), channel_dim)

        super().__init__(backbone, heads, taps, unit)


def shares(tasks: int, own: float) -> Tensor:
    """``own`` on the diagonal, the remainder to 1 spread over each row, ``(tasks, tasks)``."""
    if tasks == 1:
        return torch.ones(1, 1)
    others = torch.full((tasks, tasks), (1 - own) / (tasks - 1))
    return others.fill_diagonal_(own)


class _Stitch(Mixing):
    """One cross-stitch unit; ``alpha`` is ``(tasks, tasks)``, or ``(tasks, tasks, channels)``."""

    def __init__(self, tap: str, tasks: int, own: float, channels: int | None, channel_dim: int) -> None:
        super().__init__(tap)
        alpha = shares(tasks, own)
        if channels is not None:
            alpha = alpha.unsqueeze(-1).repeat(1, 1, channels)
        self.alpha = nn.Parameter(alpha)
        self.channel_dim = channel_dim

    def forward(self, features: Sequence[Tensor], tower: int) -> Tensor:
        """The mixture for one tower."""
        alpha = self.alpha[tower].to(features[0].dtype)
        if alpha.dim() > 1:
            check_width(features[0], self.channel_dim, self.tap, alpha.shape[1])
            shape = [1] * features[0].dim()
            shape[self.channel_dim] = -1
            alpha = alpha.view(len(alpha), *shape)
        mixed = features[0] * alpha[0]
        for other in range(1, len(features)):
            mixed = torch.addcmul(mixed, features[other], alpha[other])
        return mixed
