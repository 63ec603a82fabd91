"""Compiled models: one node of the graph stands for many layers."""

import sys
from collections.abc import Sequence

import torch
import torch._functorch.config as compiling
from torch.autograd.graph import GradientEdge, Node

from polytask._errors import UserError
from polytask.gradients._graph import Graph

_NODE = "CompiledFunctionBackward"


def is_compiled(node: Node) -> bool:
    """Whether a node stands for a compiled graph."""
    return node.name() == _NODE


def check_compiled(graph: Graph, roots: Sequence[GradientEdge]) -> None:
    """Make sure that compiled graphs serve several tasks, and hide for none which parameters it reaches.

    Args:
        graph: What the tasks reach.
        roots: The edges at which their graphs begin.

    Raises:
        UserError: If outputs of one compiled graph belong to different tasks, or a graph was compiled for
            a single backward.
    """
    for node in filter(is_compiled, graph.masks):
        _check_repeatable(node)
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


def allow_repeats() -> None:
    """From here on, compile graphs that allow one backward for each task, in this thread.

    A compiled graph may use the memory of saved tensors during a backward, after which no other is possible.
    Whether it does is decided when it is compiled and kept in all caches. The entries on the disk are apart
    by this option; those of the process are not, and are discarded once.
    """
    if compiling.donated_buffer:
        compiling.donated_buffer = False
        if "torch._dynamo" in sys.modules:
            torch.compiler.reset()


def _check_repeatable(node: Node) -> None:
    compiled = type(node)._forward_cls.metadata  # type: ignore[attr-defined]
    if compiled.bw_donated_idxs:
        raise UserError(
            "model",
            "must allow one backward for each task",
            "a compiled graph that donates its buffers to the first backward",
            "Create the engine before the forward, in the same thread",
        )
    # Threads of a device do not have the option, and take None for a graph that was compiled with it.
    compiled.bw_donated_idxs = []
