"""Sluice networks."""

from collections.abc import Sequence
from itertools import combinations
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.conv import _ConvTransposeNd

from polytask._checks import check_integer
from polytask._errors import UserError
from polytask.models._argument_checks import check_share, check_size, check_strength
from polytask.models._base import Heads
from polytask.models._cross_stitch import shares
from polytask.models._taps import Taps, channels_of
from polytask.models._towers import BackboneByTask, Mixing, Towers, TowersForward


class Sluice(Towers):
    r"""Cross-stitch between subspaces of the towers' features, and a learned mixture of layers.

    The channels of each tower's features at a tap are divided into ``subspaces``. With
    :math:`x_{s,h}` subspace *h* of tower *s*,

    .. math:: \tilde x_{t,g} = \sum_{s,h} \alpha_{tg,sh} \, x_{s,h}, \qquad
        r_t = \sum_l \beta_{t,l} \, \tilde x^{(l)}_t,

    with :math:`\alpha` learned at each tap. The head receives :math:`r_t` if ``mix_layers`` is set, and the
    output of the tower otherwise. If ``orthogonality`` is above 0, its product with

    .. math:: \sum_t \sum_l \sum_{g<h} \lVert G_{t,l,g} G_{t,l,h}^\top \rVert_F^2

    is added to the total, as ``loss/sharing``, with :math:`G_{t,l,g}` the rows of the tapped layer's weight
    that make subspace *g*.

    Args:
        backbone: A module that is copied, with its weights, for each task; or by task modules that return
            features of the same shapes at the taps.
        heads: One module per task. A dict names the tasks; the tasks of a list are called ``task0``,
            ``task1`` and so on.
        taps: Names of the backbone's modules behind which features are mixed.
        subspaces: Number of parts of equal size into which the channels are divided.
        own: Initial :math:`\alpha` of a subspace for itself; all others share the remainder to 1 equally.
        mix_layers: Whether the head receives the mixture of the taps' features, which must have one shape
            then. :math:`\beta` starts equal; the part of the backbone after the last tap is left out.
        orthogonality: Factor of the penalty, no unit.
        channel_dim: The features' dimension that holds the channels; -1 for tokens.

    Shape:
        - Input: what the backbone takes.
        - Output: for each task, what its head returns; see `MultiTaskModel.forward`.
        - The tapped modules return one tensor.

    Raises:
        UserError: If a tap is not a module of the backbone, is not called or does not return one tensor;
            features differ in shape between towers, or between taps that are mixed; channels cannot be
            divided evenly; or orthogonality is requested of a module without a weight.

    Example:
        >>> import torch
        >>> from polytask.models import MLP, Sluice, TaskHead
        >>> heads = {"digit": TaskHead(16, 10), "odd": TaskHead(16, 2)}
        >>> model = Sluice(MLP(64, [32], 16), heads, ["layers.linear1"], orthogonality=0.01)
        >>> {task: tuple(output.shape) for task, output in model(torch.rand(8, 64)).items()}
        {'digit': (8, 10), 'odd': (8, 2)}
        >>> model.sharing_penalty().shape
        torch.Size([])

    Reference:
        Ruder, Bingel, Augenstein, Søgaard, "Latent Multi-task Architecture Learning", AAAI 2019.

    Deviations:
        Any number of tasks and subspaces, and any backbone; the paper has recurrent networks.
        Orthogonality is that of weights, so that it does not depend on the batch.
    """

    def __init__(
        self,
        backbone: BackboneByTask,
        heads: Heads,
        taps: Taps,
        *,
        subspaces: int = 2,
        own: float = 0.9,
        mix_layers: bool = False,
        orthogonality: float = 0.0,
        channel_dim: int = 1,
    ) -> None:
        own = check_share(own, "own")
        channel_dim = check_integer(channel_dim, "channel_dim")
        parts = check_size(subspaces, "subspaces")

        def unit(tap: str, tasks: Sequence[str]) -> Mixing:
            return _Subspaces(tap, len(tasks), parts, own, channel_dim)

        super().__init__(backbone, heads, taps, unit)
        self.subspaces = subspaces
        self.orthogonality = check_strength(orthogonality, "orthogonality")
        depth = len(self.taps)
        self.layer_weights = (
            nn.Parameter(torch.full((len(self.task_names), depth), 1 / depth)) if mix_layers else None
        )
        if self.orthogonality:
            self.sharing_penalty()

    def represent(self, x: Any, tasks: Sequence[str] | None = None) -> Any:
        """By task, the output of its tower, or the mixture of its taps' features.

        Args:
            x: A batch of inputs.
            tasks: The tasks it is needed for; all if None.
        """
        if self.layer_weights is None:
            return super().represent(x, tasks)
        towers = TowersForward(self.backbones, self.taps, self.units, x)
        chosen = self.task_names if tasks is None else tasks
        return {task: self._layers(towers, self.task_names.index(task)) for task in chosen}

    def _layers(self, towers: TowersForward, tower: int) -> Tensor:
        assert self.layer_weights is not None
        features = [towers.mixed(tower, stop) for stop in range(len(self.taps))]
        for tap, values in zip(self.taps, features, strict=True):
            if values.shape != features[0].shape:
                found = f"{tuple(features[0].shape)} and {tuple(values.shape)}"
                raise UserError(
                    f"tap '{tap}'", "layers that are mixed must have features of one shape", found
                )
        weights = self.layer_weights[tower].to(features[0].dtype)
        return torch.einsum("l,l...->...", weights, torch.stack(features))

    def sharing_penalty(self) -> Tensor | None:
        """The term added to the total: how far subspaces are from orthogonal; None without such a penalty."""
        if not self.orthogonality:
            return None
        towers = [tower for _, tower in self.backbones.items()]
        overlaps = [self._overlap(tower, tap) for tower in towers for tap in self.taps]
        return self.orthogonality * torch.stack(overlaps).sum()

    def _overlap(self, tower: nn.Module, tap: str) -> Tensor:
        layer = tower.get_submodule(tap)
        rows = _rows_by_output(layer)
        if rows is None or len(rows) % self.subspaces:
            rule = f"must be a layer with a weight of {self.subspaces} equal parts, for orthogonality"
            raise UserError(
                f"tap '{tap}'", rule, f"a {type(layer).__name__}", "Tap a Linear or a convolution"
            )
        parts = rows.chunk(self.subspaces)
        pairs = [(one @ other.mT).square().sum() for one, other in combinations(parts, 2)]
        return torch.stack(pairs).sum() if pairs else rows.new_zeros(())


def _rows_by_output(layer: nn.Module) -> Tensor | None:
    """A layer's weight with a row for each of its outputs; None if it has no such weight."""
    weight = getattr(layer, "weight", None)
    if not isinstance(weight, Tensor) or weight.dim() < 2 or isinstance(layer, nn.Embedding):
        return None
    if isinstance(layer, _ConvTransposeNd):
        return weight.transpose(0, 1).flatten(1) if layer.groups == 1 else None
    return weight.flatten(1)


class _Subspaces(Mixing):
    """One unit; ``alpha`` is ``(tasks * subspaces, tasks * subspaces)``."""

    def __init__(self, tap: str, tasks: int, subspaces: int, own: float, channel_dim: int) -> None:
        super().__init__(tap)
        self.subspaces, self.channel_dim = subspaces, channel_dim
        self.alpha = nn.Parameter(shares(tasks * subspaces, own))

    def forward(self, features: Sequence[Tensor], tower: int) -> Tensor:
        """The mixture for one tower."""
        channels = channels_of(features[0], self.channel_dim, self.tap)
        if channels % self.subspaces:
            found = f"{channels} in shape {tuple(features[0].shape)}"
            raise UserError(f"tap '{self.tap}'", f"channels must be a multiple of {self.subspaces}", found)
        parts = torch.stack(
            [part for values in features for part in values.chunk(self.subspaces, self.channel_dim)]
        )
        rows = self.alpha[tower * self.subspaces : (tower + 1) * self.subspaces].to(parts.dtype)
        mixed = torch.einsum("gp,p...->g...", rows, parts)
        return torch.cat(list(mixed), self.channel_dim)
