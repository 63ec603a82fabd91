"""One call of a layer, and the layer's part of the Jacobian without gradients of its weights."""

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
    """One layer's part of the Jacobian, computed from the gradients of its outputs."""

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
    """The input of a layer's call, its version, and the edge of its output in the graph.

    Attributes:
        layer: The layer.
        input: The input.
        version: The input's version at the time of the call.
        edge: The edge of the graph that receives the output's gradient.
        shape: The output's shape.
    """

    layer: Any
    input: Tensor
    version: int
    edge: GradientEdge
    shape: torch.Size

    # Kinds of nodes between a parameter and the output; any other shows that the output was changed.
    ways: ClassVar[frozenset[str]]

    @classmethod
    def fits(cls, layer: Any, given: Tensor) -> bool:
        """Whether a layer with these settings and this input needs no explicit rows."""
        return True

    @abstractmethod
    def saves(self, tasks: int) -> bool:
        """Whether this takes less work than gradients of the weight."""

    @abstractmethod
    def rows(self, deltas: Sequence[Tensor | None]) -> LayerRows:
        """The layer's part of the Jacobian.

        Args:
            deltas: Gradients of the output by task; None for a task that does not reach it.
        """

    def parameters(self) -> list[Tensor]:
        """The weight, and the bias if there is one that is trained."""
        bias = getattr(self.layer, "bias", None)
        return [self.layer.weight, *([bias] if bias is not None and bias.requires_grad else [])]

    def usable(self, graph: Graph) -> bool:
        """Whether the layer's parameters act through this call alone, and its input is unchanged."""
        return (
            # Hooks may change the gradients of the parameters, which are not computed here.
            not hooked(self.layer, self.parameters())
            # A forward that replaces the class's own may compute something else.
            and "forward" not in vars(self.layer)
            and "weight" in self.layer._parameters
            and self.layer._parameters.keys() <= {"weight", "bias"}
            and self.version == self.input._version
            and all(graph.only_way(parameter, self.edge.node, self.ways) for parameter in self.parameters())
        )


def hooked(layer: nn.Module, parameters: Sequence[Tensor]) -> bool:
    """Whether torch's backward would call hooks of a layer, or of its parameters, on their gradients."""
    return bool(layer._backward_hooks) or any(parameter._backward_hooks for parameter in parameters)


def precise(deltas: Sequence[Tensor | None]) -> torch.dtype:
    """The type in which sums are computed: float32 at least."""
    known = next(delta for delta in deltas if delta is not None)
    return torch.float32 if known.dtype in HALF else known.dtype


def trained(layer: nn.Module) -> bool:
    """Whether a layer's weight is a tensor that requires a gradient."""
    weight = getattr(layer, "weight", None)
    return isinstance(weight, Tensor) and weight.requires_grad
