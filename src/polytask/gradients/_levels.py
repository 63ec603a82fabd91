"""The levels at which gradients are measured: all shared parameters, the last layer, the representation."""

from abc import ABC, abstractmethod
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from polytask._errors import UserError
from polytask.gradients._backward_step import BackwardStep
from polytask.gradients._compiled import is_compiled
from polytask.gradients._graph import Graph
from polytask.gradients._inner_products import product
from polytask.gradients._jacobian import Pairs, Rows, measure, nothing
from polytask.gradients._layer_observer import LayerObserver
from polytask.gradients._representation import Copies, Representation, heads_of, represent


class Measured(ABC):
    """One step's gradients, on their way from the Gramian to the update."""

    _product: Tensor | None = None

    def gramian(self) -> Tensor:
        """Inner products of the tasks' gradients, ``(tasks, tasks)``; computed once."""
        if self._product is None:
            self._product = self._multiply()
        return self._product

    @property
    def whole(self) -> Rows | None:
        """The rows of all shared parameters, if they are known."""
        return None

    @abstractmethod
    def _multiply(self) -> Tensor:
        """The inner products."""

    @abstractmethod
    def update(self, weights: Tensor, scale_heads: bool) -> Pairs:
        """Parameters and the gradients of the weighted sum; frees the graph.

        Args:
            weights: The weights of the present tasks.
            scale_heads: Whether they also scale parameters that one task alone reaches.
        """


class MeasuredRows(Measured):
    """Rows of the shared parameters.

    Args:
        rows: The rows.
        by: The parameters whose rows make the Gramian; all if None.
    """

    def __init__(self, rows: Rows, by: Sequence[Tensor] | None = None) -> None:
        self.rows, self.by = rows, by

    @property
    def whole(self) -> Rows:
        """These rows."""
        return self.rows

    def _multiply(self) -> Tensor:
        return self.rows.gramian(self.by)

    def update(self, weights: Tensor, scale_heads: bool) -> Pairs:
        """The weighted sum of the rows."""
        return self.rows.combine(weights) + self.rows.heads(weights if scale_heads else None)


class MeasuredLayer(Measured):
    """Rows of a few shared parameters; the update takes a backward of the weighted losses.

    Args:
        rows: Rows of those parameters.
        step: The step.
        shared: All shared parameters.
    """

    def __init__(self, rows: Rows, step: BackwardStep, shared: Sequence[Tensor]) -> None:
        self.rows, self.step, self.shared = rows, step, shared

    def _multiply(self) -> Tensor:
        return self.rows.gramian()

    def update(self, weights: Tensor, scale_heads: bool) -> Pairs:
        """One backward of the weighted losses."""
        return weighted(self.step, self.shared, weights, scale_heads)


class MeasuredRepresentation(Measured):
    """Rows of the representation; the update takes a backward through the backbone.

    Args:
        representation: The rows of this rank's tasks, and the way back; None if the rank has no task.
        step: The step.
    """

    def __init__(self, representation: Representation | None, step: BackwardStep) -> None:
        self.representation, self.step = representation, step

    def _multiply(self) -> Tensor:
        own = None if self.representation is None else product(self.representation.rows)
        ranks = self.step.ranks
        if ranks is None:
            assert own is not None
            return own
        tasks = len(self.step.losses)
        whole = self.step.losses.new_zeros(tasks, tasks)
        if own is not None:
            indices = torch.tensor(self.step.here or range(tasks), device=whole.device)
            whole[indices[:, None], indices] = own.to(whole)
        # Each rank's samples have their own representation, so the products add up; each contains the
        # number of ranks squared.
        return ranks.mean_(whole) / ranks.size

    def update(self, weights: Tensor, scale_heads: bool) -> Pairs:
        """One backward through the backbone."""
        if self.representation is None:
            return []
        weights = self.step.mine(weights)
        backbone = self.representation.backward(weights)
        pairs = [*zip(weights.unbind(), self.representation.own, strict=True)]
        own = [(p, g * weight.to(g) if scale_heads else g) for weight, mine in pairs for p, g in mine.items()]
        return backbone + own


class Level(ABC):
    """How gradients are measured.

    Attributes:
        accumulates: Whether rows may be added up over batches.
        needs_graph: Whether the whole graph of each step is needed, below the representation too.
    """

    accumulates: bool = True
    needs_graph: bool = True

    @abstractmethod
    def measure(self, step: BackwardStep, shared: Sequence[Tensor]) -> Measured:
        """The gradients of one step.

        Args:
            step: The step.
            shared: The shared parameters.
        """

    def within(self, step: BackwardStep, shared: Sequence[Tensor]) -> Sequence[Tensor] | None:
        """The parameters whose rows make the Gramian; None means all."""
        return None

    def forget(self) -> None:
        """Discard what was recorded in the forward, which would keep activations alive."""
        return


class ByRows(Level):
    """All shared parameters, with explicit rows."""

    def measure(self, step: BackwardStep, shared: Sequence[Tensor]) -> Measured:
        """Explicit rows."""
        return MeasuredRows(explicit(step, shared).over(step.ranks))


class ByParameters(Level):
    """All shared parameters, exactly; without gradients of a layer's weights if that takes less work."""

    def __init__(self, model: nn.Module) -> None:
        self.layers = LayerObserver(model)

    def measure(self, step: BackwardStep, shared: Sequence[Tensor]) -> Measured:
        """Explicit rows, and layers without them; explicit rows alone if ranks have to add theirs up."""
        if step.ranks is not None:
            return MeasuredRows(explicit(step, shared).over(step.ranks))
        calls = self.layers.take(step.graph, shared, len(step.names))
        self.layers.observing = False
        try:
            return MeasuredRows(measure(step.names, step.roots, step.graph, shared, calls))
        finally:
            self.layers.observing = True

    def forget(self) -> None:
        """Discard the layers' inputs."""
        self.layers.calls.clear()


class ByLastShared(Level):
    """The parameters of the shared layer that was called last."""

    def __init__(self, model: nn.Module) -> None:
        modules = [dict(module.named_parameters(recurse=False)).values() for module in model.modules()]
        self.layers: dict[Tensor, list[Tensor]] = {own: list(layer) for layer in modules for own in layer}

    def measure(self, step: BackwardStep, shared: Sequence[Tensor]) -> Measured:
        """Rows of the last layer."""
        rows = explicit(step, self.within(step, shared), own=False).over(step.ranks)
        return MeasuredLayer(rows, step, shared)

    def within(self, step: BackwardStep, shared: Sequence[Tensor]) -> Sequence[Tensor]:
        """The trained parameters of the last layer with a weight matrix, or else of the last layer.

        The first rank that has a task decides for all ranks.

        Raises:
            UserError: If that layer is in a compiled graph, or no shared layer is trained.
        """
        own = self._last(step.graph, shared) if step.roots.edges else []
        if step.ranks is None:
            return own
        known = {id(parameter): index for index, parameter in enumerate(shared)}
        found = step.ranks.gather([known[id(parameter)] for parameter in own])
        return [shared[index] for index in next(indices for indices in found if indices)]

    def _last(self, graph: Graph, shared: Sequence[Tensor]) -> list[Tensor]:
        reached = [parameter for parameter in shared if parameter in graph.leaves]
        if not reached:
            rule, fix = "'last_shared' requires a shared layer that is trained", "Use level='parameters'"
            raise UserError("level", rule, "none in this step", fix)
        matrices = [parameter for parameter in reached if parameter.ndim > 1]
        last = max(matrices or reached, key=graph.called)
        if any(is_compiled(node) for node in graph.consumers[graph.leaves[last]]):
            fix = "Use level='representation', or do not compile the last layer"
            rule = "'last_shared' requires a last shared layer that is not compiled"
            raise UserError("level", rule, "a compiled backbone", fix)
        layer = {id(parameter) for parameter in self.layers.get(last, [last])}
        return [parameter for parameter in reached if id(parameter) in layer]


class ByRepresentation(Level):
    """What the backbone passes to the heads, in one backward over all heads."""

    accumulates = False
    needs_graph = False

    def __init__(self, model: nn.Module) -> None:
        self.copies = Copies(heads_of(model))

    def measure(self, step: BackwardStep, shared: Sequence[Tensor]) -> Measured:
        """Rows of the representation."""
        names = step.here_names
        own = represent(names, step.roots, self.copies.take(names)) if names else None
        return MeasuredRepresentation(own, step)

    def forget(self) -> None:
        """Discard the copies."""
        self.copies.pairs.clear()


def explicit(step: BackwardStep, shared: Sequence[Tensor], own: bool = True) -> Rows:
    """Explicit rows of this rank's tasks, among those of all present tasks.

    Args:
        step: The step.
        shared: The parameters of the rows.
        own: Whether gradients of parameters that one task alone reaches are computed too, and the graph is
            freed.
    """
    names = step.here_names
    rows = measure(names, step.roots, step.graph, shared, own=own) if names else nothing(shared)
    return rows.embed(step.names, list(shared))


def weighted(
    step: BackwardStep, shared: Sequence[Tensor], weights: Tensor, scale_heads: bool, others: float = 1.0
) -> Pairs:
    """One backward of the weighted losses, without the gradients of single tasks.

    Args:
        step: The step.
        shared: The shared parameters.
        weights: The weights of the present tasks.
        scale_heads: Whether they scale the other parameters too.
        others: The factor of the other parameters' gradients if the weights do not scale them.
    """
    if not step.here_names:
        return []
    roots, graph, weights = step.roots, step.graph, step.mine(weights)
    together = set(shared)
    own = [leaf for leaf in graph.leaves if leaf not in together]
    joint = [leaf for leaf in graph.leaves if leaf in together]
    factors = roots.weighted(weights)
    if scale_heads or not own:
        return list(zip(joint + own, torch.autograd.grad(roots.edges, joint + own, factors), strict=True))
    gradients = torch.autograd.grad(roots.edges, own, [f * others for f in roots.factors], True)
    pairs: Pairs = list(zip(own, gradients, strict=True))
    if not joint:
        return pairs
    return pairs + list(zip(joint, torch.autograd.grad(roots.edges, joint, factors), strict=True))


LEVELS: dict[str, type[ByParameters] | type[ByLastShared] | type[ByRepresentation]] = {
    "parameters": ByParameters,
    "representation": ByRepresentation,
    "last_shared": ByLastShared,
}
