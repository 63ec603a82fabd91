"""Targets by task, their labels counted."""

from collections.abc import Iterable, Mapping
from typing import Any

import torch
from torch import Tensor

from polytask.batch._label_masks import IGNORE_INDEX, Labels, is_missing


class Targets(dict[str, Any]):
    """Targets by task, with the number of labels that was counted before they left the host.

    Otherwise a plain dict. Tasks without a label, or with None for a target, are not in it.

    Args:
        targets: Targets by task.
        counts: Labelled elements by task.
        partial: The positions of labels, for the tasks with missing labels; the others are in ``full``.

    Example:
        >>> import torch
        >>> targets = Targets.count({"a": torch.tensor([1, -100]), "b": torch.tensor([-100, -100])})
        >>> list(targets), targets.counts, targets.full
        (['a'], {'a': 1}, frozenset())
    """

    def __init__(
        self, targets: Mapping[str, Any], counts: Mapping[str, int], partial: Mapping[str, Labels]
    ) -> None:
        super().__init__(targets)
        self.counts = dict(counts)
        self.partial = dict(partial)
        self.full = frozenset(targets) - frozenset(partial)

    @classmethod
    def count(cls, targets: Mapping[str, Any], ignore_index: Mapping[str, int] | None = None) -> "Targets":
        """Count the labels of each task; leave out the tasks that have none.

        Reads the tensors' values: call it before they are sent to a device.

        Args:
            targets: Targets by task.
            ignore_index: The integer that means "no label", by task; -100 by default.
        """
        ignored = ignore_index or {}
        kept, counts, partial = {}, {}, {}
        for name, target in targets.items():
            elements = count = 0 if target is None else 1
            if isinstance(target, Tensor):
                elements = target.numel()
                index = ignored.get(name, IGNORE_INDEX)
                missing = is_missing(target, index)
                count = elements - int(missing.count_nonzero())
            if count:
                kept[name], counts[name] = target, count
            if 0 < count < elements:
                partial[name] = Labels.of(~missing, index)
        return cls(kept, counts, partial)

    @classmethod
    def joined(cls, parts: Iterable["Targets"]) -> "Targets":
        """The targets of several tasks as one, in the order of the parts.

        Args:
            parts: Targets of different tasks.
        """
        joined = cls({}, {}, {})
        for part in parts:
            joined.update(part)
            joined.counts |= part.counts
            joined.partial |= part.partial
            joined.full |= part.full
        return joined

    def to(self, device: torch.device) -> "Targets":
        """Move the positions of labels to the device; the batch moves the targets themselves.

        Args:
            device: The device.
        """
        self.partial = {name: labels.to(device) for name, labels in self.partial.items()}
        return self
