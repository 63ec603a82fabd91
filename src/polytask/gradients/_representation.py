"""The tasks' gradients by what the backbone passes to the heads, in one backward over all heads."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.graph import GradientEdge, get_gradient_edge
from torch.utils._pytree import tree_map

from polytask._errors import UserError
from polytask._tasks import TaskModules
from polytask.gradients._backward_step import Roots
from polytask.gradients._graph import trace
from polytask.gradients._jacobian import Pairs, flat, parts

_FIX = "Use level='parameters'"
_GAP = 1040
_SOURCE = "_polytask_source"


def heads_of(model: nn.Module) -> dict[str, nn.Module]:
    """The heads of a model by task.

    Args:
        model: A model with an attribute ``heads``, modules by task.

    Raises:
        UserError: If there are none, or two tasks have the same head.
    """
    heads = getattr(model, "heads", None)
    if not isinstance(heads, Mapping | nn.ModuleDict | TaskModules):
        raise UserError(
            "level", "'representation' requires a model with heads by task", f"a {type(model).__name__}", _FIX
        )
    found = dict(heads.items())
    if len({id(head) for head in found.values()}) < len(found):
        rule = "'representation' requires a different head for each task"
        raise UserError("level", rule, "one head for several tasks", _FIX)
    return found


class Copies:
    """The inputs of each head, as copies in the graph that no other head uses.

    In a backward of the summed losses, a copy's gradient is that of the head's task alone.

    Args:
        heads: The heads by task.
    """

    def __init__(self, heads: Mapping[str, nn.Module]) -> None:
        self.pairs: dict[str, list[tuple[Tensor, GradientEdge]]] = {}
        for name, head in heads.items():
            head.register_forward_pre_hook(partial(self._copy, name), with_kwargs=True)

    def __getstate__(self) -> dict[str, Any]:
        # A model may be copied while its heads' inputs are recorded; their graphs cannot be.
        return {**self.__dict__, "pairs": {}}

    def _copy(self, name: str, head: nn.Module, args: Any, kwargs: Any) -> Any:
        if not torch.is_grad_enabled():
            return None
        pairs: list[tuple[Tensor, GradientEdge]] = []

        def copy(value: Any) -> Any:
            if not isinstance(value, Tensor) or not value.requires_grad:
                return value
            # Copies of an earlier engine for the same model are still one representation.
            source = getattr(value, _SOURCE, value)
            view = value.view_as(value)
            setattr(view, _SOURCE, source)
            pairs.append((source, get_gradient_edge(view)))
            return view

        # Mapping over nested inputs takes longer than a small head.
        alone = len(args) == 1 and not kwargs and isinstance(args[0], Tensor)
        given = ((copy(args[0]),), kwargs) if alone else tree_map(copy, (args, kwargs))
        self.pairs[name] = pairs
        return given

    def take(self, names: Sequence[str]) -> list[list[tuple[Tensor, GradientEdge]]]:
        """The inputs of the present tasks' heads; discards all inputs.

        Raises:
            UserError: If a head received nothing that requires a gradient.
        """
        pairs, self.pairs = self.pairs, {}
        for name in names:
            if not pairs.get(name):
                rule = "the head must be called with a representation that requires a gradient"
                raise UserError(f"task '{name}'", rule, "no such call in this step", _FIX)
        return [pairs[name] for name in names]


@dataclass(frozen=True)
class Representation:
    """Gradients of the present tasks by the representation.

    Attributes:
        tensors: The inputs of the heads.
        rows: ``(tasks, values)``; 0 for inputs that a task's head did not receive.
        own: For each task the gradients of its head's parameters.
    """

    tensors: list[Tensor]
    rows: Tensor
    own: list[dict[Tensor, Tensor]]

    def backward(self, weights: Tensor) -> Pairs:
        """The backbone's gradients for a weighted sum of the rows; frees the graph."""
        pieces = parts(weights.to(self.rows) @ self.rows, self.tensors)
        given = [piece.view(t.shape).to(t.dtype) for t, piece in zip(self.tensors, pieces, strict=True)]
        leaves = list(trace([get_gradient_edge(tensor).node for tensor in self.tensors]).leaves)
        overlap = {parameter for own in self.own for parameter in own}.intersection(leaves)
        if overlap:
            rule = "'representation' requires that the tasks reach the backbone through their heads only"
            raise UserError("level", rule, "another path", _FIX)
        return list(zip(leaves, torch.autograd.grad(self.tensors, leaves, given), strict=True))


def represent(
    names: Sequence[str], roots: Roots, pairs: Sequence[Sequence[tuple[Tensor, GradientEdge]]]
) -> Representation:
    """Differentiate all losses in one backward over the heads.

    Args:
        names: The present tasks.
        roots: Their roots.
        pairs: For each task the inputs of its head, and the copies that the head used.

    Raises:
        UserError: If a loss does not go through its own head alone, or no two heads share a tensor.
    """
    edges = [edge for mine in pairs for _, edge in mine]
    graph = roots.trace(edges)
    for bit, (name, mine) in enumerate(zip(names, pairs, strict=True)):
        # A head may leave a part of its input unused.
        if {graph.masks.get(edge.node, 0) for _, edge in mine} - {0} != {1 << bit}:
            rule = "the loss of this task, and no other, must depend on the input of its head"
            raise UserError(f"task '{name}'", rule, "another graph", _FIX)
    leaves = {leaf: graph.masks[node] for leaf, node in graph.leaves.items()}
    if any(mask & (mask - 1) for mask in leaves.values()):
        rule = "'representation' requires that tasks share nothing behind it"
        raise UserError("level", rule, "a parameter that several tasks reach behind it", _FIX)
    tensors = _shared_tensors(pairs)
    inputs: list[Any] = [*edges, *leaves]
    gradients = iter(torch.autograd.grad(roots.edges, inputs, roots.factors, allow_unused=True))
    rows = _rows(tensors, pairs, gradients)
    own: list[dict[Tensor, Tensor]] = [{} for _ in names]
    for (leaf, mask), gradient in zip(leaves.items(), gradients, strict=True):
        if gradient is not None:
            own[mask.bit_length() - 1][leaf] = gradient
    return Representation(tensors, rows, own)


def _shared_tensors(pairs: Sequence[Sequence[tuple[Tensor, GradientEdge]]]) -> list[Tensor]:
    users: dict[Tensor, set[int]] = {}
    for index, mine in enumerate(pairs):
        for tensor, _ in mine:
            users.setdefault(tensor, set()).add(index)
    if len(pairs) > 1 and max(len(indices) for indices in users.values()) == 1:
        rule = "'representation' requires a representation that heads share"
        raise UserError("level", rule, "one for each head", _FIX)
    return list(users)


def _rows(
    tensors: Sequence[Tensor],
    pairs: Sequence[Sequence[tuple[Tensor, GradientEdge]]],
    gradients: Iterator[Tensor | None],
) -> Tensor:
    size = sum(tensor.numel() for tensor in tensors)
    kind = torch.promote_types(tensors[0].dtype, torch.float32)
    # Rows at distances that are powers of two would compete for the same lines of the cache.
    rows = tensors[0].new_empty(len(pairs), size + _GAP, dtype=kind)[:, :size]
    for row, mine in zip(rows, pairs, strict=True):
        found: dict[Tensor, Tensor] = {}
        for tensor, _ in mine:
            gradient = next(gradients)
            if gradient is not None:
                found[tensor] = found[tensor] + gradient if tensor in found else gradient
        torch.cat([flat(tensor, found.get(tensor)) for tensor in tensors], out=row)
    return rows
