"""Losses by task, as sums and counts."""

from dataclasses import dataclass

from torch import Tensor


@dataclass(frozen=True)
class TaskLosses:
    """Losses of the present tasks as sums and counts, so that batches can be averaged.

    Args:
        names: The tasks that have a label, in order.
        sums: Sum of the labelled elements' losses, ``(tasks,)``.
        counts: What the sums are divided by, ``(tasks,)``: the number of labelled elements; their
            total class weight if a loss has class weights; 1 if losses are summed.
        here: The tasks among them that have a label on this rank; None for all.

    Example:
        >>> import torch
        >>> TaskLosses(("a",), torch.tensor([6.0]), torch.tensor([3.0])).means
        tensor([2.])
    """

    names: tuple[str, ...]
    sums: Tensor
    counts: Tensor
    here: tuple[str, ...] | None = None

    @property
    def means(self) -> Tensor:
        """The losses, ``(tasks,)``."""
        return self.sums / self.counts
