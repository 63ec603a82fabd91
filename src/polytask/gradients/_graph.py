"""The graph of one step: which task reaches which parameter, and by which path."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from functools import cached_property

import torch
from torch import Tensor
from torch.autograd.graph import GradientEdge, Node, get_gradient_edge

# They map elements one by one, so that a task keeps its index in a vector.
_ELEMENTWISE = ("DivBackward0", "MulBackward0", "ToCopyBackward0")


@dataclass(frozen=True)
class Graph:
    """The nodes below the roots.

    Attributes:
        masks: For each node the roots that reach it, one bit each.
        consumers: For each node those that pass a gradient to it, once for each edge.
    """

    masks: dict[Node, int]
    consumers: dict[Node, list[Node]] = field(repr=False)

    @cached_property
    def leaves(self) -> dict[Tensor, Node]:
        """Tensors that accumulate a gradient, with their nodes."""
        return {node.variable: node for node in self.masks if hasattr(node, "variable")}

    def reaching(self, leaf: Tensor) -> int:
        """The roots that reach a leaf, one bit each."""
        node = self.leaves.get(leaf)
        return 0 if node is None else self.masks[node]

    def called(self, leaf: Tensor) -> int:
        """The sequence number of the last operation of the forward that used a leaf."""
        return max(node._sequence_nr() for node in self.consumers[self.leaves[leaf]])

    def only_way(self, leaf: Tensor, end: Node, kinds: Collection[str]) -> bool:
        """Whether a leaf acts through one node only, with nodes of these kinds in between."""
        node = self.leaves.get(leaf)
        while node is not None and node is not end:
            above = self.consumers.get(node, [])
            node = above[0] if len(above) == 1 and above[0].name() in kinds else None
        return node is end


def trace(roots: Sequence[Node], stops: Collection[Node] = ()) -> Graph:
    """Traverse the graph from the roots, once.

    Args:
        roots: The first nodes; each has its own bit.
        stops: Nodes below which the graph is not traversed.

    Example:
        >>> a, b = torch.zeros(2, requires_grad=True), torch.zeros(2, requires_grad=True)
        >>> graph = trace([(a * b).sum().grad_fn, a.sum().grad_fn])
        >>> graph.reaching(a), graph.reaching(b)
        (3, 1)
    """
    consumers: dict[Node, list[Node]] = {}
    order: list[Node] = []
    seen: set[Node] = set()
    stack = [(root, False) for root in roots]
    while stack:
        node, done = stack.pop()
        if done:
            order.append(node)
        elif node not in seen:
            seen.add(node)
            stack.append((node, True))
            if node in stops:
                continue
            for child, _ in node.next_functions:
                if child is not None:
                    consumers.setdefault(child, []).append(node)
                    stack.append((child, False))
    masks = dict.fromkeys(reversed(order), 0)
    for bit, root in enumerate(roots):
        masks[root] |= 1 << bit
    for child, above in ((node, consumers.get(node, ())) for node in masks):
        for node in above:
            masks[child] |= masks[node]
    return Graph(masks, consumers)


def split(losses: Sequence[Tensor]) -> tuple[list[GradientEdge], tuple[Tensor, ...]]:
    """The edge at which each task's own graph begins, and the derivative of its loss by that edge.

    Losses that were stacked, scaled and unstacked again have all tasks below them; their own graphs begin
    below the stack.

    Args:
        losses: Scalars with a graph.

    Example:
        >>> a, b = (torch.ones((), requires_grad=True) for _ in range(2))
        >>> edges, factors = split((torch.stack([2 * a, 3 * b]) / 4).unbind())
        >>> [edge.node.name() for edge in edges], factors
        (['MulBackward0', 'MulBackward0'], (tensor(0.2500), tensor(0.2500)))
    """
    tops = [get_gradient_edge(loss) for loss in losses]
    edges = [_peel(top) for top in tops]
    if edges == tops:
        return edges, tuple(torch.ones_like(loss) for loss in losses)
    if len({(edge.node, edge.output_nr) for edge in edges}) < len(edges):
        pairs = zip(losses, edges, strict=True)
        return edges, tuple(torch.autograd.grad(loss, edge, retain_graph=True)[0] for loss, edge in pairs)
    return edges, torch.autograd.grad(losses, edges, retain_graph=True)


def _peel(edge: GradientEdge) -> GradientEdge:
    node, output, index, found = edge.node, edge.output_nr, None, edge
    while True:
        kind = node.name()
        if kind in ("UnbindBackward0", "SelectBackward0") and index is None:
            if node._saved_dim != 0:  # type: ignore[attr-defined]
                return found
            index = output if kind == "UnbindBackward0" else node._saved_index  # type: ignore[attr-defined]
        elif kind == "StackBackward0" and index is not None:
            below, output = node.next_functions[index]
            if below is None or node._saved_dim != 0:  # type: ignore[attr-defined]
                return found
            node, index = below, None
            found = GradientEdge(node, output)
            continue
        elif kind not in _ELEMENTWISE:
            return found
        live = [(child, number) for child, number in node.next_functions if child is not None]
        if len(live) != 1:
            return found
        node, output = live[0]
