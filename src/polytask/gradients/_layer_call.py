"""One call of a layer, and its part of the Jacobian without gradients of its weights."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.autograd.graph import GradientEdge

from polytask.batch import HALF
from polytask.gradients._graph import Graph


class LayerRows(ABC):
    """One layer's part of the Jacobian, in what the gradients of its outputs give."""

    @abstractmethod
    def gramian(self) -> Tensor:
        """Inner products of the tasks' gradients of the layer's parameters, ``(tasks, tasks)``."""

    @abstractmethod
    def parameters(self) -> list[Tensor]:
        """The layer's parameters."""

    @abstractmethod
    def combine(self, weights: Tensor) -> list[tuple[Tensor, Tensor]]:
        """The weighted sum of the tasks' gradients, for each parameter."""


@dataclass(frozen=True)
class LayerCall(ABC):
    """What went into a layer, in which version, and where its output's gradient is.

    Attributes:
        layer: The layer.
        input: What went in.
        version: The input's version then.
        edge: Where the output's gradient is found.
        shape: The output's shape.
    """

    layer: Any
    input: Tensor
    version: int
    edge: GradientEdge
    shape: torch.Size

    # Nodes between a parameter and the output; with any other, the output is not what the layer computes.
    ways: ClassVar[frozenset[str]]

    @classmethod
    def fits(cls, layer: Any, given: Tensor) -> bool:
        """Whether a layer with these settings and this input can be done without rows."""
        return True

    @abstractmethod
    def saves(self, tasks: int) -> bool:
        """Whether it takes less work than gradients of the weight."""

    @abstractmethod
    def rows(self, deltas: Sequence[Tensor | None]) -> LayerRows:
        """The layer's part of the Jacobian.

        Args:
            deltas: Gradients of the output by task; None where a task does not reach it.
        """

    def parameters(self) -> list[Tensor]:
        """The weight, and the bias where there is one that is trained."""
        bias = getattr(self.layer, "bias", None)
        return [self.layer.weight, *([bias] if bias is not None and bias.requires_grad else [])]

    def usable(self, graph: Graph) -> bool:
        """Whether the layer's parameters act through this call alone, and its input is as it was."""
        return (
            # A forward put in the place of the class's own may compute something else.
            "forward" not in vars(self.layer)
            and "weight" in self.layer._parameters
            and self.layer._parameters.keys() <= {"weight", "bias"}
            and self.version == self.input._version
            and all(graph.only_way(parameter, self.edge.node, self.ways) for parameter in self.parameters())
        )


def precise(deltas: Sequence[Tensor | None]) -> torch.dtype:
    """What sums are taken in: float32 at least."""
    known = next(delta for delta in deltas if delta is not None)
    return torch.float32 if known.dtype in HALF else known.dtype


def trained(layer: nn.Module) -> bool:
    """Whether a layer's weight is a tensor that gathers a gradient."""
    weight = getattr(layer, "weight", None)
    return isinstance(weight, Tensor) and weight.requires_grad
