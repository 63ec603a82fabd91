"""Embeddings: gradients of the rows that a batch looked up, instead of the whole table."""

from collections.abc import Sequence
from typing import ClassVar

import torch
from torch import Tensor, nn

from polytask.gradients._inner_products import product
from polytask.gradients._layer_call import LayerCall, LayerRows, precise


class EmbeddingCall(LayerCall):
    """A call of an embedding."""

    ways: ClassVar[frozenset[str]] = frozenset({"EmbeddingBackward0"})

    @classmethod
    def fits(cls, layer: nn.Embedding, given: Tensor) -> bool:
        """Whether a row's gradient is the plain sum over the positions that looked it up."""
        return not layer.scale_grad_by_freq and layer.max_norm is None

    def saves(self, tasks: int) -> bool:
        """Whether fewer rows are looked up than the table has."""
        return self.input.numel() < int(self.layer.num_embeddings)

    def rows(self, deltas: Sequence[Tensor | None]) -> "EmbeddingRows":
        """The rows that were looked up."""
        return EmbeddingRows(self, deltas)


class EmbeddingRows(LayerRows):
    """The tasks' gradients of the rows that were looked up; those of all others are 0.

    There are as many slots as positions in the batch, so that the number of different rows need not be read
    on the host.

    Args:
        call: The call.
        deltas: Gradients of the output by task; None for a task that does not reach it.
    """

    def __init__(self, call: EmbeddingCall, deltas: Sequence[Tensor | None]) -> None:
        self.table: Tensor = call.layer.weight
        identifiers = call.input.flatten().long()
        slots = _slots(identifiers)
        self.identifiers = identifiers.new_zeros(len(identifiers)).scatter_(0, slots, identifiers)
        self.sparse, self.padding = bool(call.layer.sparse), call.layer.padding_idx
        self.used = slots
        size = (len(deltas), len(identifiers), call.layer.embedding_dim)
        self.gradients = self.table.new_zeros(size, dtype=precise(deltas))
        for rows, delta in zip(self.gradients, deltas, strict=True):
            if delta is not None:
                rows.index_add_(0, slots, delta.reshape(rows.shape).to(rows))
        if self.padding is not None:
            self.gradients *= (self.identifiers != self.padding)[:, None]

    def gramian(self) -> Tensor:
        """From the rows that were looked up."""
        return product(self.gradients.flatten(1))

    def parameters(self) -> list[Tensor]:
        """The table."""
        return [self.table]

    def combine(self, weights: Tensor) -> list[tuple[Tensor, Tensor]]:
        """The table's gradient, sparse if the layer's gradients are."""
        rows = self.gradients
        summed = (weights.to(rows) @ rows.flatten(1)).view(rows.shape[1:])
        if self.sparse:
            # As in torch's own sparse gradients, the number of rows is read on the host.
            kept = torch.arange(int(self.used.max()) + 1 if len(self.used) else 0, device=rows.device)
            if self.padding is not None:
                kept = kept[self.identifiers[kept] != self.padding]
            return [(self.table, self._sparse(self.identifiers[kept], summed[kept]))]
        table = rows.new_zeros(self.table.shape)
        return [(self.table, table.index_add_(0, self.identifiers, summed))]

    def _sparse(self, identifiers: Tensor, values: Tensor) -> Tensor:
        shape = self.table.shape
        return torch.sparse_coo_tensor(
            identifiers[None], values, shape, is_coalesced=True, check_invariants=False
        )


def _slots(identifiers: Tensor) -> Tensor:
    """For each identifier a number below their count, the same for equal ones."""
    ordered, order = identifiers.sort()
    # Unlike that of torch.unique, the shape of this result does not depend on the values.
    first = (ordered.diff(prepend=ordered[:1]) != 0).cumsum(0)
    return first.new_empty(len(first)).scatter_(0, order, first)
