"""Which elements of a target have a label, and which are missing."""

from dataclasses import dataclass, replace

import torch
from torch import Tensor

IGNORE_INDEX = -100
HALF = (torch.float16, torch.bfloat16)


def is_missing(target: Tensor, ignore_index: int = IGNORE_INDEX) -> Tensor:
    """The elements without a label: NaN in floating point, ``ignore_index`` in integers.

    Shape:
        - target: any.
        - returns: the same, bool.

    Example:
        >>> is_missing(torch.tensor([0.5, float("nan")]))
        tensor([False,  True])
    """
    if target.is_floating_point():
        return target.isnan()
    if target.dtype != torch.bool:
        # Outside the dtype's range the comparison would wrap around: 156 is -100 as uint8.
        limits = torch.iinfo(target.dtype)
        if not limits.min <= ignore_index <= limits.max:
            return torch.zeros_like(target, dtype=torch.bool)
    return target == ignore_index


@dataclass(frozen=True)
class Labels:
    """The positions of the labels of a target that lacks some; found once, before it leaves the host.

    Attributes:
        rows: The rows that have a label, as indices.
        depth: The smallest number of leading dimensions whose entries each have all of their labels or none.
        by_class: Whether labels along dimension 1 are all present or all missing.
        ignore_index: The integer that means "no label".

    Example:
        >>> labels = Labels.of(torch.tensor([[True, True], [False, False], [True, True]]))
        >>> labels.rows, labels.whole(1)
        (tensor([0, 2]), True)
    """

    rows: Tensor
    depth: int
    by_class: bool
    ignore_index: int = IGNORE_INDEX

    @classmethod
    def of(cls, present: Tensor, ignore_index: int = IGNORE_INDEX) -> "Labels":
        """The positions of labels; reads values.

        Args:
            present: Which elements of the target are labelled.
            ignore_index: The integer that means "no label".
        """
        labels, depth = present, present.ndim
        while depth > 1:
            inner = labels.any(dim=-1)
            if not torch.equal(inner, labels.all(dim=-1)):
                break
            labels, depth = inner, depth - 1
        rows = _any(labels).nonzero().flatten()
        by_class = depth == 1 or torch.equal(present.any(dim=1), present.all(dim=1))
        return cls(rows, depth, by_class, ignore_index)

    def present(self, target: Tensor) -> Tensor:
        """The elements of some of the target's rows that have a label.

        Args:
            target: Rows of the target.
        """
        return ~is_missing(target, self.ignore_index)

    def whole(self, depth: int) -> bool:
        """Whether each entry of the first ``depth`` dimensions has all of its labels or none."""
        return self.depth <= depth

    def to(self, device: torch.device) -> "Labels":
        """The same with the rows on the device."""
        return replace(self, rows=self.rows.to(device, non_blocking=True))


def _any(present: Tensor) -> Tensor:
    """Rows with a label."""
    return present.flatten(1).any(dim=1) if present.ndim > 1 else present
