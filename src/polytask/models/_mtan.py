"""Multi-task attention networks."""

from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from polytask._errors import UserError
from polytask._tasks import TaskModules
from polytask.models._argument_checks import check_module
from polytask.models._base import ByTask, Heads
from polytask.models._taps import check_channels, check_taps, check_width, features_at


class MTAN(ByTask):
    r"""One convolutional backbone, and for each task an attention mask over its features at every tap.

    With :math:`p_l` the features at tap *l*,

    .. math:: a_{t,l} = \sigma\left(g_{t,l}([p_l; h_{t,l-1}])\right), \qquad
        h_{t,l} = f_{t,l}(a_{t,l} \odot p_l),

    where *g* is two 1×1 convolutions, *f* one 3×3 convolution, and :math:`h_{t,l-1}`, joined along the
    channels and left out at the first tap, is max-pooled to the size of :math:`p_l`. The last *h* goes to the
    task's head; what the backbone does after the last tap is left out.

    Args:
        backbone: The part that all tasks share.
        heads: One module per task, which takes feature maps. A dict names the tasks; the tasks of a list are
            called ``task0``, ``task1`` and so on.
        taps: The backbone's modules whose features are masked, with their numbers of channels, in the order
            in which they are called.
        norm: Whether batch normalisation follows each convolution.

    Shape:
        - Input: what the backbone takes.
        - Output: for each task, what its head returns for (N, channels, height, width), with the channels and
          the size of the last tap; see `MultiTaskModel.forward`.
        - The tapped modules return (N, channels, height, width).

    Raises:
        UserError: If a tap is not a module of the backbone, is not called or does not return feature maps
            with the given channels, or taps are not in the order of their calls.

    Example:
        >>> import torch
        >>> from torch import nn
        >>> from polytask.models import MTAN, ClassificationHead
        >>> stem, body = nn.Conv2d(3, 8, 3), nn.Sequential(nn.MaxPool2d(2), nn.Conv2d(8, 16, 3))
        >>> heads = {"digit": ClassificationHead(16, 10), "odd": ClassificationHead(16, 2)}
        >>> model = MTAN(nn.Sequential(stem, body), heads, taps={"0": 8, "1": 16})
        >>> {task: tuple(output.shape) for task, output in model(torch.rand(4, 3, 16, 16)).items()}
        {'digit': (4, 10), 'odd': (4, 2)}

    Reference:
        Liu, Johns, Davison, "End-to-End Multi-Task Learning with Attention", CVPR 2019, equations 1 and 2.

    Deviations:
        A mask is computed from the features to which it is applied; the paper computes it from those of an
        earlier layer of the same block. For attention in a decoder, use taps in a decoder.
    """

    def __init__(
        self, backbone: nn.Module, heads: Heads, taps: Mapping[str, int], *, norm: bool = True
    ) -> None:
        super().__init__(heads)
        self.backbone = check_module(backbone, "backbone")
        self.channels = check_channels(taps)
        self.taps = check_taps(backbone, taps)
        widths = [self.channels[tap] for tap in self.taps]
        self.attention = TaskModules({task: _branch(widths, norm) for task in self.task_names})

    def represent(self, x: Any, tasks: Sequence[str] | None = None) -> Any:
        """By task, its features at the last tap.

        Args:
            x: A batch of inputs.
            tasks: The tasks it is needed for; all if None.
        """
        features = features_at(self.backbone, self.taps, x)
        for tap, values in zip(self.taps, features, strict=True):
            self._check_maps(tap, values)
        chosen = self.task_names if tasks is None else tasks
        return {task: self._attend(task, features) for task in chosen}

    def _attend(self, task: str, features: Sequence[Tensor]) -> Tensor | None:
        carried: Tensor | None = None
        for block, values in zip(self.attention[task].children(), features, strict=True):
            carried = block(values, carried)
        return carried

    def _check_maps(self, tap: str, values: Any) -> None:
        if not isinstance(values, Tensor) or values.dim() != 4:
            found = (
                f"shape {tuple(values.shape)}" if isinstance(values, Tensor) else f"a {type(values).__name__}"
            )
            rule = "must return feature maps of shape (N, channels, height, width)"
            raise UserError(f"tap '{tap}'", rule, found)
        check_width(values, 1, tap, self.channels[tap])


def _branch(widths: Sequence[int], norm: bool) -> nn.ModuleList:
    return nn.ModuleList(_Attention(width, before, norm) for before, width in pairwise([0, *widths]))


class _Attention(nn.Module):
    """One task's mask at one tap."""

    def __init__(self, channels: int, before: int, norm: bool) -> None:
        super().__init__()
        self.mask = nn.Sequential(
            *_convolution(before + channels, channels, 1, norm),
            nn.ReLU(),
            *_convolution(channels, channels, 1, norm),
            nn.Sigmoid(),
        )
        self.carry = nn.Sequential(*_convolution(channels, channels, 3, norm), nn.ReLU())

    def forward(self, features: Tensor, carried: Tensor | None) -> Tensor:
        """The task's features after the tap.

        Args:
            features: The backbone's features.
            carried: The task's features after the previous tap, if any.
        """
        given = features
        if carried is not None:
            pooled = functional.adaptive_max_pool2d(carried, features.shape[-2:])
            given = torch.cat([features, pooled], dim=1)
        attended: Tensor = self.carry(self.mask(given) * features)
        return attended


def _convolution(channels: int, outputs: int, size: int, norm: bool) -> list[nn.Module]:
    # Batch normalisation subtracts the mean, and a bias with it.
    layer = nn.Conv2d(channels, outputs, size, padding=size // 2, bias=not norm)
    return [layer, nn.BatchNorm2d(outputs)] if norm else [layer]
