"""Linear and convolution layers: products of their inputs with a matrix of weights."""

from abc import abstractmethod
from collections.abc import Sequence
from typing import ClassVar

import torch
from torch import Tensor, nn

from polytask.gradients._graph import Graph
from polytask.gradients._inner_products import product
from polytask.gradients._layer_call import LayerCall, LayerRows, precise

_CASTS = frozenset({"ToCopyBackward0"})
_TURNS = frozenset({"TBackward0", "TransposeBackward0"})


class MatrixCall(LayerCall):
    """A call of a layer that multiplies each row of its input by a matrix, in groups of features."""

    @property
    @abstractmethod
    def sizes(self) -> tuple[int, int, int, int]:
        """The numbers of groups, rows, input features and output features of each group."""

    @abstractmethod
    def inputs(self) -> Tensor:
        """The rows that are multiplied, ``(groups, rows, in)``."""

    @abstractmethod
    def outputs(self, delta: Tensor) -> Tensor:
        """A gradient of the output, ``(groups, rows, out)``."""

    def saves(self, tasks: int) -> bool:
        """Whether this takes fewer multiplications than gradients of the weight."""
        _, rows, features, out = self.sizes
        size, outputs = features * out, rows * out
        explicit = tasks * size * (rows + tasks + 1)
        ours = rows * rows * features + tasks * outputs * (rows + tasks + 1) + rows * size
        return rows < features and ours < explicit

    def rows(self, deltas: Sequence[Tensor | None]) -> "MatrixRows":
        """Rows whose Gramian uses the inputs' inner products."""
        return MatrixRows(self, deltas)


class LinearCall(MatrixCall):
    """A call of a linear layer."""

    ways: ClassVar[frozenset[str]] = _CASTS | {
        f"{kind}Backward0" for kind in ("T", "Transpose", "Addmm", "Mm", "View", "UnsafeView")
    }

    def usable(self, graph: Graph) -> bool:
        """Whether, in addition, no hook has transposed the output."""
        return self.edge.node.name() not in _TURNS and super().usable(graph)

    @property
    def sizes(self) -> tuple[int, int, int, int]:
        """One group; every input vector is a row."""
        features, out = self.layer.in_features, self.layer.out_features
        return 1, self.shape.numel() // out, features, out

    def inputs(self) -> Tensor:
        """The input vectors."""
        return self.input.reshape(1, -1, self.layer.in_features)

    def outputs(self, delta: Tensor) -> Tensor:
        """The output vectors."""
        return delta.reshape(1, -1, self.layer.out_features)


class ConvCall(MatrixCall):
    """A call of a convolution; every position of the output is a row, whose features are its input window."""

    ways: ClassVar[frozenset[str]] = _CASTS | {"ConvolutionBackward0"}

    @classmethod
    def fits(cls, layer: nn.Conv2d, given: Tensor) -> bool:
        """Whether the input has a batch dimension."""
        return given.ndim == layer.weight.ndim

    @property
    def sizes(self) -> tuple[int, int, int, int]:
        """The layer's groups, and the positions of all outputs of the batch."""
        layer = self.layer
        features = layer.weight[0].numel()
        return (
            layer.groups,
            self.shape.numel() // layer.out_channels,
            features,
            layer.out_channels // layer.groups,
        )

    def inputs(self) -> Tensor:
        """The input windows."""
        layer = self.layer
        mode = "constant" if layer.padding_mode == "zeros" else layer.padding_mode
        windows = nn.functional.pad(self.input, layer._reversed_padding_repeated_twice, mode)
        settings = zip(layer.kernel_size, layer.stride, layer.dilation, strict=True)
        for dimension, (size, step, gap) in enumerate(settings, start=2):
            windows = windows.unfold(dimension, gap * (size - 1) + 1, step)[..., ::gap]
        # To groups, batch, positions, channels, kernel.
        batch, channels, *rest = windows.shape
        windows = windows.view(batch, layer.groups, channels // layer.groups, *rest)
        rank = len(rest) // 2
        windows = windows.permute(1, 0, *range(3, 3 + rank), 2, *range(3 + rank, 3 + 2 * rank))
        return windows.reshape(layer.groups, -1, self.sizes[2])

    def outputs(self, delta: Tensor) -> Tensor:
        """The channels of each position."""
        groups, rows, _, out = self.sizes
        by_channel = delta.reshape(len(delta), groups, out, -1)
        return by_channel.permute(1, 0, 3, 2).reshape(groups, rows, out)


class MatrixRows(LayerRows):
    r"""The gradients δ of a layer's outputs and its inputs *a*, instead of gradients of its weight.

    The weight's gradient of task *t* is :math:`\delta_t^\top a` with the input *a* (rows × in), so that

    .. math:: \langle \delta_s^\top a, \delta_t^\top a \rangle
              = \langle \delta_s, (a a^\top) \delta_t \rangle .

    Args:
        call: The call.
        deltas: Gradients of the output by task; None for a task that does not reach it.
    """

    def __init__(self, call: MatrixCall, deltas: Sequence[Tensor | None]) -> None:
        self.call = call
        groups, rows, _, out = call.sizes
        dtype = precise(deltas)
        self.deltas = call.input.new_zeros((len(deltas), groups, rows, out), dtype=dtype)
        for rows_of_task, delta in zip(self.deltas, deltas, strict=True):
            if delta is not None:
                rows_of_task.copy_(call.outputs(delta))
        self.inputs = call.inputs().to(dtype)

    def gramian(self) -> Tensor:
        """Computed from the inputs' inner products, which are the same for every task."""
        kernel = self.inputs @ self.inputs.mT
        if len(self.call.parameters()) > 1:
            # The bias is a weight whose input is 1.
            kernel = kernel + 1
        gramian = product(self.deltas.flatten(1), (kernel @ self.deltas).flatten(1))
        return (gramian + gramian.mT) / 2

    def parameters(self) -> list[Tensor]:
        """The weight, and the bias if there is one."""
        return self.call.parameters()

    def combine(self, weights: Tensor) -> list[tuple[Tensor, Tensor]]:
        """Computed from the weighted sum of the δ."""
        delta = torch.einsum("t,tgro->gro", weights.to(self.deltas), self.deltas)
        weight, *bias = self.call.parameters()
        gradients = [(weight, (delta.mT @ self.inputs).view(weight.shape))]
        return gradients + [(parameter, delta.sum(1).flatten()) for parameter in bias]
