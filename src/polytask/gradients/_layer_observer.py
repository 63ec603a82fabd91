"""Observes a model's layers, to find those that need no gradient of their weights in a step."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.graph import get_gradient_edge

from polytask.gradients._embedding import EmbeddingCall
from polytask.gradients._graph import Graph
from polytask.gradients._layer_call import LayerCall, trained
from polytask.gradients._matrix_layers import ConvCall, LinearCall

# A norm layer is not among them: its gradient is one sum over the batch, no larger than its output's.
CALLS: dict[type[nn.Module], type[LayerCall]] = {
    nn.Linear: LinearCall,
    nn.Conv1d: ConvCall,
    nn.Conv2d: ConvCall,
    nn.Conv3d: ConvCall,
    nn.Embedding: EmbeddingCall,
}


class LayerObserver:
    """Records the last call of each layer of a model that may need no explicit rows.

    The edge of a layer's output is recorded at once, since an in-place activation gives the output another.

    Args:
        model: The model whose layers are observed, without those of a subclass, which may compute something
            else.
    """

    def __init__(self, model: nn.Module) -> None:
        self.calls: dict[nn.Module, LayerCall] = {}
        self.observing = True
        for module in model.modules():
            if type(module) in CALLS:
                module.register_forward_hook(self._note)

    def __getstate__(self) -> dict[str, Any]:
        # A model may be copied while calls are recorded; their graphs cannot be.
        return {**self.__dict__, "calls": {}}

    def _note(self, layer: nn.Module, args: tuple[Any, ...], output: Any) -> None:
        # A compiled graph has no nodes for single layers, and requesting them would break it.
        if torch.compiler.is_compiling():
            return
        # Checkpointing calls layers again, in the middle of a backward.
        if not (self.observing and torch.is_grad_enabled() and len(args) == 1 and trained(layer)):
            return
        kind, (given,) = CALLS.get(type(layer)), args
        if kind is None or not isinstance(output, Tensor) or not output.requires_grad:
            return
        if kind.fits(layer, given):
            edge = get_gradient_edge(output)
            self.calls[layer] = kind(layer, given.detach(), given._version, edge, output.shape)

    def take(self, graph: Graph, shared: Sequence[Tensor], tasks: int) -> list[LayerCall]:
        """The recorded calls that save work and whose parameters are shared; discards all calls."""
        calls, self.calls = self.calls, {}
        known = set(shared)
        return [
            call
            for call in calls.values()
            if known.issuperset(call.parameters()) and call.saves(tasks) and call.usable(graph)
        ]
