"""Neural discriminative dimensionality reduction."""

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from polytask._checks import check_integer
from polytask._tasks import TaskModules
from polytask.models._argument_checks import check_share
from polytask.models._base import Heads
from polytask.models._cross_stitch import shares
from polytask.models._taps import check_channels, check_width
from polytask.models._towers import BackboneByTask, Mixing, Towers


class NDDR(Towers):
    r"""A backbone for each task; behind each tap, every tower continues with all towers' features, reduced.

    .. math:: \tilde x_t = \mathrm{BN}\left(W_t \, [x_1; \ldots; x_T]\right)

    with the features joined along their channels, and :math:`W_t` (channels × tasks · channels) a learned
    1×1 convolution, which starts from a multiple of the identity for each task.

    Args:
        backbone: A module that is copied, with its weights, for each task; or by task modules that return
            features of the same shapes at the taps.
        heads: One module per task. A dict names the tasks; the tasks of a list are called ``task0``,
            ``task1`` and so on.
        taps: The backbone's modules behind which features are mixed, with their numbers of channels.
        own: Initial factor of the identity for a tower's own features; the other tasks share the remainder
            to 1 equally. 1 if there is only one task.
        norm: Whether batch normalisation follows. Without it, ``own=1`` leaves the networks separate.
        channel_dim: The features' dimension that holds the channels; -1 for tokens.

    Shape:
        - Input: what the backbone takes.
        - Output: for each task, what its head returns; see `MultiTaskModel.forward`.
        - The tapped modules return one tensor.

    Raises:
        UserError: If a tap is not a module of the backbone, is not called or does not return one tensor, the
            towers' features differ in shape, or their channels differ from those given.

    Example:
        >>> import torch
        >>> from polytask.models import MLP, NDDR, TaskHead
        >>> heads = {"digit": TaskHead(16, 10), "odd": TaskHead(16, 2)}
        >>> model = NDDR(MLP(64, [32], 16), heads, taps={"layers.activation1": 32})
        >>> {task: tuple(output.shape) for task, output in model(torch.rand(8, 64)).items()}
        {'digit': (8, 10), 'odd': (8, 2)}

    Reference:
        Gao, Ma, Zhao, Liu, Yuille, "NDDR-CNN: Layerwise Feature Fusing in Multi-Task CNNs by Neural
        Discriminative Dimensionality Reduction", CVPR 2019.

    Deviations:
        The weight decay of the convolution is the optimizer's; the shortcut variant is left out.
    """

    def __init__(
        self,
        backbone: BackboneByTask,
        heads: Heads,
        taps: Mapping[str, int],
        *,
        own: float = 0.9,
        norm: bool = True,
        channel_dim: int = 1,
    ) -> None:
        own = check_share(own, "own")
        channel_dim = check_integer(channel_dim, "channel_dim")
        channels = check_channels(taps)

        def unit(tap: str, tasks: Sequence[str]) -> Mixing:
            factors = dict(zip(tasks, shares(len(tasks), own), strict=True))
            layers = {task: _reduction(row, channels[tap], norm) for task, row in factors.items()}
            return _Reduction(tap, layers, channels[tap], channel_dim)

        super().__init__(backbone, heads, taps, unit)


def _reduction(factors: Tensor, channels: int, norm: bool) -> nn.Sequential:
    layer = nn.Linear(len(factors) * channels, channels, bias=False)
    with torch.no_grad():
        layer.weight.copy_(torch.cat([factor * torch.eye(channels) for factor in factors], dim=1))
    # One-dimensional, since all features are rows of channels there.
    return nn.Sequential(layer, nn.BatchNorm1d(channels)) if norm else nn.Sequential(layer)


class _Reduction(Mixing):
    """One NDDR layer: for each tower a 1×1 convolution of all towers' features."""

    def __init__(self, tap: str, layers: Mapping[str, nn.Module], channels: int, channel_dim: int) -> None:
        super().__init__(tap)
        self.layers = TaskModules(layers)
        self.tasks = tuple(layers)
        self.channels, self.channel_dim = channels, channel_dim

    def forward(self, features: Sequence[Tensor], tower: int) -> Tensor:
        """The reduced features for one tower."""
        check_width(features[0], self.channel_dim, self.tap, self.channels)
        joined = torch.cat([values.movedim(self.channel_dim, -1) for values in features], dim=-1)
        rows: Tensor = self.layers[self.tasks[tower]](joined.flatten(0, -2))
        return rows.view(*joined.shape[:-1], self.channels).movedim(-1, self.channel_dim)
