"""The Jacobian of a step: explicit rows, and layers that need none."""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor
from torch.autograd.graph import get_gradient_edge

from polytask._distributed import Ranks
from polytask.batch import HALF
from polytask.gradients._accumulate import added
from polytask.gradients._backward_step import Roots
from polytask.gradients._graph import Graph, trace
from polytask.gradients._inner_products import product
from polytask.gradients._layer_call import LayerCall, LayerRows

Pairs = list[tuple[Tensor, Tensor | None]]
# For each parameter that a task has reached the indices of its sparse gradient; None if it is dense.
Layouts = dict[Tensor, Tensor | None]


@dataclass(frozen=True)
class Rows:
    """Gradients of the present tasks.

    Attributes:
        names: The present tasks.
        parameters: Shared parameters with explicit rows, in order.
        jacobian: Their rows, ``(tasks, parameters)``; 0 for parameters that a task does not reach.
        own: For each task the gradients of parameters that no other task reaches.
        layers: Shared layers without explicit rows.
        layouts: The layouts of the gradients that the rows were made of. A parameter that is not among them
            was reached by no task, and gets no gradient.
    """

    names: tuple[str, ...]
    parameters: list[Tensor]
    jacobian: Tensor
    own: list[dict[Tensor, Tensor]]
    layers: list[LayerRows] = field(default_factory=list)
    layouts: Layouts = field(default_factory=dict)

    def gramian(self, by: Sequence[Tensor] | None = None) -> Tensor:
        """Inner products of the tasks' gradients, ``(tasks, tasks)``, by all layers or some whole layers."""
        total, layers = product(self._columns(by)), self.layers
        if by is not None:
            chosen = set(by)
            layers = [layer for layer in layers if chosen.issuperset(layer.parameters())]
        for layer in layers:
            total = total + layer.gramian()
        return total

    def _columns(self, by: Sequence[Tensor] | None) -> Tensor:
        if by is None:
            return self.jacobian
        columns = dict(zip(self.parameters, parts(self.jacobian, self.parameters), strict=True))
        chosen = [columns[parameter] for parameter in by if parameter in columns]
        return torch.cat(chosen, dim=1) if chosen else self.jacobian[:, :0]

    def norms(self) -> Tensor:
        """Norm of each task's explicit row, ``(tasks,)``."""
        norms: Tensor = torch.linalg.vector_norm(self.jacobian, dim=1)
        return norms

    def scaled(self, factor: float | Tensor) -> "Rows":
        """The explicit rows times a factor, without the tasks' own gradients."""
        return replace(self, jacobian=self.jacobian * factor, own=[{} for _ in self.names])

    def combine(self, weights: Tensor) -> Pairs:
        """The weighted sum of the tasks' gradients, for each shared parameter."""
        pairs = self.unflatten(weights.to(self.jacobian) @ self.jacobian)
        return pairs + [pair for layer in self.layers for pair in layer.combine(weights)]

    def heads(self, weights: Tensor | None) -> Pairs:
        """The gradients of parameters of one task alone, scaled by the weights if there are any."""
        scales = [None] * len(self.own) if weights is None else weights.unbind()
        return [
            (parameter, gradient if scale is None else gradient * scale.to(gradient))
            for own, scale in zip(self.own, scales, strict=True)
            for parameter, gradient in own.items()
        ]

    def unflatten(self, update: Tensor) -> Pairs:
        """An update ``(parameters,)`` in pieces, with the layout of the gradients that it was made of."""
        pieces = zip(self.parameters, parts(update, self.parameters), strict=True)
        return [(p, _laid(piece.view(p.shape), self.layouts[p])) for p, piece in pieces if p in self.layouts]

    def only(self, names: tuple[str, ...]) -> "Rows":
        """The explicit rows of some tasks."""
        kept = [index for index, name in enumerate(self.names) if name in names]
        if len(kept) == len(self.names):
            return self
        own = [self.own[index] for index in kept]
        return replace(self, names=tuple(self.names[k] for k in kept), jacobian=self.jacobian[kept], own=own)

    def embed(self, names: tuple[str, ...], parameters: list[Tensor]) -> "Rows":
        """The same explicit rows among those of more tasks and parameters, with 0 for what is new.

        A parameter that only one task reached, and that is shared now, becomes part of the rows.
        """
        if names == self.names and list(map(id, parameters)) == list(map(id, self.parameters)):
            return self
        size = sum(parameter.numel() for parameter in parameters)
        wide = self.jacobian.new_zeros(len(names), size, dtype=_promoted(parameters))
        at = dict(zip(parameters, parts(wide, parameters), strict=True))
        own: list[dict[Tensor, Tensor]] = [{} for _ in names]
        layouts = self.layouts
        for parameter, part in zip(self.parameters, parts(self.jacobian, self.parameters), strict=True):
            at[parameter][[names.index(name) for name in self.names]] = part
        for name, gradients in zip(self.names, self.own, strict=True):
            for parameter, gradient in gradients.items():
                if parameter in at:
                    at[parameter][names.index(name)] = flat(parameter, gradient).to(wide)
                    layouts = _joined(layouts, {parameter: _layout(gradient)})
                else:
                    own[names.index(name)][parameter] = gradient
        return replace(self, names=names, parameters=parameters, jacobian=wide, own=own, layouts=layouts)

    def times(self, factors: Tensor) -> "Rows":
        """Each task's gradients times its factor, ``(tasks,)``; explicit rows only."""
        jacobian = self.jacobian * factors.to(self.jacobian).unsqueeze(1)
        pairs = zip(factors.unbind(), self.own, strict=True)
        own = [{p: gradient * factor.to(gradient) for p, gradient in mine.items()} for factor, mine in pairs]
        return replace(self, jacobian=jacobian, own=own)

    def over(self, ranks: Ranks | None) -> "Rows":
        """The mean of the explicit rows over all ranks, which have rows of the same tasks and parameters."""
        if ranks is None:
            return self
        layouts = _over(ranks, self.parameters, self.layouts)
        return replace(self, jacobian=ranks.mean_(self.jacobian), layouts=layouts)

    def plus(self, other: "Rows") -> "Rows":
        """The sum with rows of the same tasks and parameters."""
        own = [dict(mine) for mine in self.own]
        for mine, theirs in zip(own, other.own, strict=True):
            for parameter, gradient in theirs.items():
                mine[parameter] = added(mine[parameter], gradient) if parameter in mine else gradient
        layouts = _joined(self.layouts, other.layouts)
        return replace(self, jacobian=self.jacobian + other.jacobian, own=own, layouts=layouts)


def parts(values: Tensor, parameters: Sequence[Tensor]) -> tuple[Tensor, ...]:
    """Values whose last dimension holds the elements of all parameters, by parameter."""
    sizes = [parameter.numel() for parameter in parameters]
    return torch.split(values, sizes, dim=-1)


def nothing(parameters: Sequence[Tensor]) -> Rows:
    """Rows of no task, for a rank that has none.

    Args:
        parameters: The shared parameters.
    """
    size = sum(parameter.numel() for parameter in parameters)
    like = parameters[0] if parameters else torch.zeros(())
    return Rows((), list(parameters), like.new_zeros(0, size, dtype=_promoted(parameters)), [])


def measure(
    names: tuple[str, ...],
    roots: Roots,
    graph: Graph,
    shared: Sequence[Tensor],
    calls: Sequence[LayerCall] = (),
    own: bool = True,
) -> Rows:
    """Differentiate each task's loss, one after another.

    Args:
        names: The present tasks.
        roots: Their roots.
        graph: What they reach.
        shared: The shared parameters.
        calls: Calls of layers that need no explicit rows.
        own: Whether gradients of parameters that one task alone reaches are computed too, and the graph is
            freed.
    """
    without = {parameter for call in calls for parameter in call.parameters()}
    explicit = [parameter for parameter in shared if parameter not in without]
    edges = [call.edge for call in calls]
    size = sum(parameter.numel() for parameter in explicit)
    jacobian = roots.factors[0].new_empty(len(names), size, dtype=_promoted(explicit))
    alone: list[dict[Tensor, Tensor]] = []
    layouts: Layouts = {}
    deltas: list[tuple[Tensor | None, ...]] = []
    known = set(shared)
    joint = [(leaf, graph.reaching(leaf)) for leaf in explicit]
    single = [(leaf, graph.masks[node]) for leaf, node in graph.leaves.items() if own and leaf not in known]
    for bit, row in enumerate(jacobian):
        here = [leaf for leaf, mask in joint if mask >> bit & 1]
        mine = [leaf for leaf, mask in single if mask >> bit & 1]
        inputs: list[Any] = [*edges, *here, *mine]
        kept = not own or bit + 1 < len(names)
        gradients = (
            torch.autograd.grad([roots.edges[bit]], inputs, [roots.factors[bit]], kept, allow_unused=True)
            if inputs
            else ()
        )
        deltas.append(gradients[: len(edges)])
        found = iter(gradients[len(edges) :])
        if joint:
            pieces = [(leaf, next(found) if mask >> bit & 1 else None) for leaf, mask in joint]
            torch.cat([flat(leaf, gradient) for leaf, gradient in pieces], out=row)
            here_layouts = {leaf: _layout(value) for leaf, value in pieces if value is not None}
            layouts = _joined(layouts, here_layouts)
        alone.append(
            {leaf: gradient for leaf, gradient in zip(mine, found, strict=True) if gradient is not None}
        )
    columns = zip(*deltas, strict=True) if edges else ()
    layers = [call.rows(column) for call, column in zip(calls, columns, strict=True)]
    return Rows(names, explicit, jacobian, alone, layers, layouts)


def _layout(gradient: Tensor) -> Tensor | None:
    return gradient._indices() if gradient.is_sparse else None


def _joined(one: Layouts, other: Layouts) -> Layouts:
    joined = {**one, **other}
    for leaf in one.keys() & other.keys():
        first, second = one[leaf], other[leaf]
        joined[leaf] = None if first is None or second is None else torch.cat([first, second], 1)
    return joined


def _over(ranks: Ranks, parameters: Sequence[Tensor], layouts: Layouts) -> Layouts:
    """The layouts on all ranks together, the same on each of them."""
    found_here = [float(leaf in layouts) for leaf in parameters]
    sums = ranks.sums(found_here + [float(layouts.get(leaf, leaf) is None) for leaf in parameters])
    reached, dense = sums[: len(parameters)], sums[len(parameters) :]
    found: Layouts = {leaf: None for leaf, number in zip(parameters, reached, strict=True) if number}
    for leaf in (leaf for leaf, any_dense in zip(parameters, dense, strict=True) if not any_dense):
        if leaf in found:
            own = layouts.get(leaf)
            everyone = ranks.gather(None if own is None else own.cpu())
            indices = [each.to(leaf.device) for each in everyone if each is not None]
            found[leaf] = torch.cat(indices, 1)
    return found


def _laid(update: Tensor, indices: Tensor | None) -> Tensor:
    """An update with the layout of gradients: dense, or sparse at the given indices and where it is not 0."""
    if indices is None:
        return update
    levels = len(indices)
    kept = update.ne(0).flatten(levels).any(levels) if update.ndim > levels else update.ne(0)
    kept[tuple(indices)] = True
    chosen = kept.nonzero().mT
    return torch.sparse_coo_tensor(
        chosen, update[tuple(chosen)], update.shape, is_coalesced=True, check_invariants=False
    )


def _promoted(parameters: Sequence[Tensor]) -> torch.dtype:
    kind = torch.float32
    for parameter in parameters:
        kind = kind if parameter.dtype in HALF else torch.promote_types(kind, parameter.dtype)
    return kind


def times(pairs: Pairs, factor: float) -> Pairs:
    """Gradients times a factor."""
    if factor == 1:
        return pairs
    return [(leaf, None if gradient is None else gradient * factor) for leaf, gradient in pairs]


def derivatives(loss: Tensor) -> Pairs:
    """The gradients of one loss by all that it reaches; frees the graph.

    Args:
        loss: A scalar with a graph.
    """
    leaves = list(trace([get_gradient_edge(loss).node]).leaves)
    return list(zip(leaves, torch.autograd.grad(loss, leaves, allow_unused=True), strict=True))


def flat(leaf: Tensor, gradient: Tensor | None) -> Tensor:
    """A leaf's gradient as a vector; 0 if it is None."""
    if gradient is None:
        return leaf.new_zeros(leaf.numel())
    return (gradient.to_dense() if gradient.is_sparse else gradient).reshape(-1)
