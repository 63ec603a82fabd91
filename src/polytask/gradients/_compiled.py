"""Compiled models: one node of the graph stands for many layers."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from torch.autograd.graph import GradientEdge, Node

from polytask._errors import UserError
from polytask.gradients._graph import Graph

_NODE = "CompiledFunctionBackward"


def is_compiled(node: Node) -> bool:
    """Whether a node stands for a compiled graph."""
    return node.name() == _NODE


def check_compiled(graph: Graph, roots: Sequence[GradientEdge]) -> None:
    """Make sure that no compiled graph hides which task reaches which parameter.

    Args:
        graph: What the tasks reach.
        roots: The edges at which their graphs begin.

    Raises:
        UserError: If outputs of one compiled graph belong to different tasks.
    """
    for node in filter(is_compiled, graph.masks):
        tasks: dict[int, int] = {}
        for above in graph.consumers.get(node, ()):
            for child, output in above.next_functions:
                if child == node:
                    tasks[output] = tasks.get(output, 0) | graph.masks[above]
        for bit, root in enumerate(roots):
            if root.node == node:
                tasks[root.output_nr] = tasks.get(root.output_nr, 0) | 1 << bit
        if len(set(tasks.values())) > 1:
            raise UserError(
                "model",
                "must show a gradient-based weighting which task reaches which parameter",
                "one compiled graph with outputs for different tasks",
                "Compile the backbone alone, for example with model.backbone.compile()",
            )


@contextmanager
def repeatable() -> Iterator[None]:
    """A context for several backwards through one graph, one for each task.

    Raises:
        UserError: If a compiled graph allows one backward only.
    """
    try:
        yield
    except RuntimeError as error:
        # Torch has no type for this error, and no public way to ask whether a graph donates its buffers.
        if "donated buffer" not in str(error):
            raise
        raise UserError(
            "model",
            "must allow one backward for each task",
            "a compiled graph that donates its buffers to the first backward",
            "Set torch._functorch.config.donated_buffer = False before the first step",
        ) from error
