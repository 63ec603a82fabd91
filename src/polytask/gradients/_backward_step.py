"""One call of `Engine.backward`: its losses in one form, whatever form they were given in."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor
from torch.autograd.graph import GradientEdge

from polytask._distributed import Ranks
from polytask._errors import UserError
from polytask.gradients._compiled import check_compiled
from polytask.gradients._graph import Graph, split, trace
from polytask.losses import TaskLosses
from polytask.weighting import Weighting

Losses = Tensor | Mapping[str, Tensor] | TaskLosses


@dataclass(frozen=True)
class Roots:
    """The edges at which the tasks' own graphs begin, and the derivatives of the scaled losses by them."""

    edges: list[GradientEdge]
    factors: tuple[Tensor, ...]

    @classmethod
    def of(cls, values: Sequence[Tensor], scale: float | Tensor) -> "Roots":
        """The roots of losses that are multiplied by a scale."""
        edges, factors = split(values) if values else ([], ())
        return cls(edges, tuple(factor * scale for factor in factors))

    def trace(self, stops: Sequence[GradientEdge] = ()) -> Graph:
        """The graph that the tasks reach.

        Raises:
            UserError: If one compiled graph has outputs for different tasks.
        """
        graph = trace([edge.node for edge in self.edges], {edge.node for edge in stops})
        check_compiled(graph, self.edges)
        return graph

    def weighted(self, weights: Tensor) -> list[Tensor]:
        """The derivatives of the weighted sum of the losses by the edges."""
        return [
            factor * weight.to(factor) for factor, weight in zip(self.factors, weights.unbind(), strict=True)
        ]


@dataclass(frozen=True)
class BackwardStep:
    """One call of `Engine.backward`.

    Attributes:
        names: The present tasks.
        losses: Their losses, without scale and graph.
        here: The indices of the tasks that are present on this rank; None if all are.
        roots: The edges at which the graphs of these begin.
        counts: The number of labels of each loss, if known.
        scale: The losses' scale.
        ranks: The processes that train together, if there are several.
    """

    names: tuple[str, ...]
    losses: Tensor
    here: list[int] | None
    roots: Roots
    counts: Tensor | None
    scale: float | Tensor
    ranks: Ranks | None = None

    @classmethod
    def of(
        cls,
        losses: Losses,
        weighting: Weighting,
        names: Sequence[str] | None,
        scale: float | Tensor,
        ranks: Ranks | None,
    ) -> "BackwardStep":
        """Bring the arguments of a call into one form.

        Args:
            losses: By task, or a vector in the order of the names.
            weighting: The weighting, which has the names of all tasks.
            names: Which tasks a vector holds; all if None.
            scale: The losses' scale.
            ranks: The processes that train together, if there are several.

        Raises:
            UserError: If the losses do not fit.
        """
        present, values = by_name(losses, weighting, names)
        counts, here = None, None
        if isinstance(losses, TaskLosses):
            order = [losses.names.index(name) for name in present]
            counts = losses.counts if order == sorted(order) else losses.counts[order]
            if losses.here is not None and len(losses.here) < len(present):
                here = [index for index, name in enumerate(present) if name in losses.here]
        mine = values if here is None else [values[index] for index in here]
        return cls(present, values_of(values), here, Roots.of(mine, scale), counts, scale, ranks)

    @property
    def here_names(self) -> tuple[str, ...]:
        """The tasks that are present on this rank."""
        return self.names if self.here is None else tuple(self.names[index] for index in self.here)

    def mine(self, weights: Tensor) -> Tensor:
        """The weights of this rank's tasks, from those of all present tasks."""
        return weights if self.here is None else weights[self.here]

    @cached_property
    def graph(self) -> Graph:
        """The graph that the tasks reach, traversed at the first access."""
        return self.roots.trace()


def named(losses: Losses, names: Sequence[str] | None) -> tuple[str, ...]:
    """The tasks that a call names; ``task0`` and so on for a vector without names.

    Args:
        losses: By task, or a vector in the order of the names.
        names: Which tasks a vector holds.

    Example:
        >>> named({"a": torch.ones(())}, None), named(torch.ones(2), None)
        (('a',), ('task0', 'task1'))
    """
    if isinstance(losses, Tensor):
        return tuple(names or (f"task{index}" for index in range(losses.numel())))
    return tuple(losses) if isinstance(losses, Mapping) else losses.names


def by_name(
    losses: Losses, weighting: Weighting, names: Sequence[str] | None
) -> tuple[tuple[str, ...], list[Tensor]]:
    """The present tasks and their losses, scalars with a graph.

    Args:
        losses: By task, or a vector in the order of the names.
        weighting: The weighting, which has the names of all tasks.
        names: Which tasks a vector holds; all if None.

    Raises:
        UserError: If there is none, a loss is not a scalar or has no graph, or a vector does not fit.
    """
    if isinstance(losses, Tensor):
        found, values = _from_vector(losses, weighting, names)
    elif names is not None:
        kind = f"a {type(losses).__name__}"
        raise UserError("names", "requires losses in one tensor", kind, "Leave names out")
    elif isinstance(losses, Mapping):
        found, values = tuple(losses), list(losses.values())
    else:
        found, values = losses.names, list(losses.means.unbind())
    if not found:
        raise UserError("losses", "at least one present task is required", "none", "Skip the step")
    elsewhere = _elsewhere(losses)
    for name, value in zip(found, values, strict=True):
        if not isinstance(value, Tensor) or value.ndim or not (value.requires_grad or name in elsewhere):
            shape = f"shape {tuple(value.shape)}" if isinstance(value, Tensor) and value.ndim else None
            rule, fix = "the loss must be a scalar with a graph", "Leave tasks without a label out"
            raise UserError(f"task '{name}'", rule, shape or repr(value), fix)
    if not weighting.names:
        weighting.setup(found)
    weighting.columns(found)
    return _in_order(found, values, weighting.names)


def _from_vector(
    losses: Tensor, weighting: Weighting, names: Sequence[str] | None
) -> tuple[tuple[str, ...], list[Tensor]]:
    numbered = [f"task{i}" for i in range(len(losses))] if losses.ndim else []
    expected = tuple(names or weighting.names or numbered)
    if losses.shape != (len(expected),):
        raise UserError(
            "losses",
            f"one loss is required for each of the tasks {', '.join(expected)}",
            f"shape {tuple(losses.shape)}",
            "Pass the present tasks as names=",
        )
    return expected, list(losses.unbind())


def _elsewhere(losses: Losses) -> set[str]:
    """Tasks that are present on other ranks only."""
    if not isinstance(losses, TaskLosses) or losses.here is None:
        return set()
    return set(losses.names) - set(losses.here)


def _in_order(
    names: tuple[str, ...], values: list[Tensor], order: tuple[str, ...]
) -> tuple[tuple[str, ...], list[Tensor]]:
    # Learned weights and random numbers must not depend on the order of a dict.
    pairs = dict(zip(names, values, strict=True))
    sorted_names = tuple(name for name in order if name in pairs)
    return sorted_names, [pairs[name] for name in sorted_names]


def values_of(losses: Sequence[Tensor]) -> Tensor:
    """The losses without their graph, ``(tasks,)``."""
    return torch.stack([loss.detach() for loss in losses])
