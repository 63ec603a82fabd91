"""The graph of one step: which task reaches which parameter, and by which path."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property

import torch
from torch import Tensor
from torch.autograd.graph import GradientEdge, Node, get_gradient_edge

# These nodes map elements one by one, so that a task keeps its index in a vector.
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

    Losses that were joined in a vector and taken from it again have all tasks below them; their own graphs
    begin below the vector. If they were stacked, scaled by elements and selected by an index, the nodes show
    it. For other operations, such as slices, the derivatives by the vector's elements are read on the host.

    Args:
        losses: Scalars with a graph.

    Example:
        >>> a, b = (torch.ones((), requires_grad=True) for _ in range(2))
        >>> edges, factors = split((torch.stack([2 * a, 3 * b]) / 4).unbind())
        >>> [edge.node.name() for edge in edges], factors
        (['MulBackward0', 'MulBackward0'], (tensor(0.2500), tensor(0.2500)))
    """
    tops = [get_gradient_edge(loss) for loss in losses]
    edges = [peel(top) for top in tops]
    edges = [_below_vector(loss, edge) for loss, edge in zip(losses, edges, strict=True)]
    if edges == tops:
        return edges, tuple(torch.ones_like(loss) for loss in losses)
    if len({(edge.node, edge.output_nr) for edge in edges}) < len(edges):
        pairs = zip(losses, edges, strict=True)
        return edges, tuple(torch.autograd.grad(loss, edge, retain_graph=True)[0] for loss, edge in pairs)
    return edges, torch.autograd.grad(losses, edges, retain_graph=True)


def leaves_of(losses: Mapping[str, Tensor]) -> dict[str, set[Tensor]]:
    """The leaves that each task's loss reaches, also after a backward that has freed the graph.

    Args:
        losses: Losses by task; those without a graph reach nothing.

    Example:
        >>> a, b = (torch.ones((), requires_grad=True) for _ in range(2))
        >>> reached = leaves_of({"first": a * b, "second": 2 * b})
        >>> len(reached["first"]), reached["second"] == {b}
        (2, True)
    """
    roots = {name: peel(get_gradient_edge(loss)).node for name, loss in losses.items() if loss.requires_grad}
    graph = trace(list(roots.values()))
    return {
        name: {leaf for leaf, node in graph.leaves.items() if graph.masks[node] >> bit & 1}
        for bit, name in enumerate(roots)
    }


def peel(edge: GradientEdge) -> GradientEdge:
    """The edge at which a task's own graph begins, as far as the nodes show it.

    Args:
        edge: The edge of a loss.

    Example:
        >>> a, b = (torch.ones((), requires_grad=True) for _ in range(2))
        >>> peel(get_gradient_edge(torch.stack([2 * a, b + 1])[-1])).node.name()
        'AddBackward0'
    """
    node, output, index, found = edge.node, edge.output_nr, None, edge
    while True:
        kind = node.name()
        if kind in ("UnbindBackward0", "SelectBackward0") and index is None:
            if _signed(node._saved_dim) not in (0, -1):  # type: ignore[attr-defined]
                return found
            index = output if kind == "UnbindBackward0" else _signed(node._saved_index)  # type: ignore[attr-defined]
        elif index is not None and _is_vector_of_scalars(node):
            below, output = node.next_functions[index]
            if below is None:
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


def _signed(number: int) -> int:
    """A number of which torch shows the unsigned form."""
    return number - 2**64 if number >= 2**63 else number


def _is_vector_of_scalars(node: Node) -> bool:
    """Whether a node joins numbers, one from each task, into a vector."""
    if node.name() not in ("StackBackward0", "CatBackward0"):
        return False
    below = [(child, output) for child, output in node.next_functions if child is not None]
    single = all(_shape(child, output) in ((), (1,)) for child, output in below)
    return single and _shape(node, 0) == (len(node.next_functions),)


def _shape(node: Node, output: int) -> tuple[int, ...]:
    return tuple(node._input_metadata[output].shape)


def _below_vector(loss: Tensor, edge: GradientEdge) -> GradientEdge:
    """The element of a vector of losses on which a loss depends, if it depends on one alone."""
    elements = _elements(edge)
    if not elements:
        return edge
    gradients = torch.autograd.grad(loss, elements, retain_graph=True, allow_unused=True)
    pairs = zip(elements, gradients, strict=True)
    used = [element for element, value in pairs if value is not None and value.any()]
    return _below_vector(loss, peel(used[0])) if len(used) == 1 else edge


def _elements(edge: GradientEdge) -> list[GradientEdge]:
    """The elements of the vectors of losses through which alone everything acts on a loss; else none."""
    elements: list[GradientEdge] = []
    seen: set[Node] = set()
    stack = [edge.node]
    while stack:
        node = stack.pop()
        if node in seen:
            continue
        seen.add(node)
        below = [GradientEdge(child, output) for child, output in node.next_functions if child is not None]
        if _is_vector_of_scalars(node):
            elements += below
            continue
        # A leaf, or a tensor that is larger than a vector of losses: a part of the model or of its loss.
        if not below or any(len(_shape(each.node, each.output_nr)) > 1 for each in below):
            return []
        stack += [each.node for each in below]
    return elements
