"""The losses of a stage, kept on the device until they are read."""

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

# Steps kept before they are added up, so that a long stage that is never read stays small.
_MOST_STEPS = 1024


class LossMeter:
    """Losses by task and their total over many steps; nothing is read on the host in a step.

    Args:
        names: All tasks, in order.

    Example:
        >>> meter = LossMeter(["digit"])
        >>> meter.add({"digit": torch.tensor(2.0)}, torch.tensor(2.0), {"digit": 30}, 32, 1)
        >>> meter.add({"digit": torch.tensor(4.0)}, torch.tensor(4.0), {"digit": 10}, 32, 2)
        >>> meter.read()
        {'digit': 2.5, 'total': 3.0}
        >>> meter.epoch()
        {'digit': 2.5, 'total': 3.0}
    """

    def __init__(self, names: Sequence[str]) -> None:
        self.names = [*names, "total"]
        self.reset()

    def reset(self) -> None:
        """Forget everything."""
        self.window: list[tuple[dict[str, Tensor], dict[str, float], int]] = []
        self.recent_sums: dict[str, float] = {}
        self.recent_counts: dict[str, float] = {}
        self.sums = dict.fromkeys(self.names, 0.0)
        self.counts = dict.fromkeys(self.names, 0.0)
        self.bad: tuple[dict[str, float], int] | None = None

    def add(
        self, losses: Mapping[str, Tensor], total: Tensor, counts: Mapping[str, float], size: int, step: int
    ) -> None:
        """Keep one step's losses.

        Args:
            losses: Losses of the present tasks; auxiliary losses are kept under their names.
            total: The loss that was minimised.
            counts: Labelled elements by task; ``size`` for names that are not in it.
            size: Rows, the weight of the total.
            step: The step's number, for the message if a loss is not finite.
        """
        values = {name: loss.detach() for name, loss in losses.items()}
        values["total"] = total.detach()
        self.window.append((values, {name: counts.get(name, size) for name in values}, step))
        if len(self.window) >= _MOST_STEPS:
            self._fold()

    def read(self) -> dict[str, float]:
        """Means over the steps since the last reading; one copy to the host."""
        self._fold()
        means = _means(self.recent_sums, self.recent_counts)
        for name in self.recent_sums:
            self.sums[name] = self.sums.get(name, 0.0) + self.recent_sums[name]
            self.counts[name] = self.counts.get(name, 0.0) + self.recent_counts[name]
        self.recent_sums, self.recent_counts = {}, {}
        return means

    def first_bad(self) -> tuple[dict[str, float], int] | None:
        """All losses that are not finite in the first step with such a loss, and its number.

        One copy to the host.
        """
        self._fold()
        return self.bad

    def _fold(self) -> None:
        sums, counts = self.recent_sums, self.recent_counts
        for (name, weight, step), value in zip(self._keys(), self._values(), strict=True):
            if not math.isfinite(value):
                self._note(name, value, step)
            sums[name] = sums.get(name, 0.0) + value * weight
            counts[name] = counts.get(name, 0.0) + weight
        self.window = []

    def _note(self, name: str, value: float, step: int) -> None:
        if self.bad is None:
            self.bad = ({}, step)
        if self.bad[1] == step:
            self.bad[0].setdefault(name, value)

    def _keys(self) -> list[tuple[str, float, int]]:
        return [(name, weights[name], step) for _, weights, step in self.window for name in weights]

    def _values(self) -> list[float]:
        tensors = [value for values, _, _ in self.window for value in values.values()]
        if not tensors:
            return []
        # Tensors that were loaded may be on another device than those of later steps.
        device = tensors[-1].device
        return torch.stack([tensor.reshape(()).to(device, torch.float32) for tensor in tensors]).tolist()

    def epoch(self, add_up: Callable[[Tensor], Tensor] | None = None) -> dict[str, float]:
        """Means since the last reset: over labelled elements for tasks, over rows for the total.

        Args:
            add_up: Adds a tensor up over all processes; None if there is one.
        """
        self.read()
        if add_up is None:
            return _means(self.sums, self.counts)
        names = sorted(self.sums)
        both = [[self.sums[name] for name in names], [self.counts[name] for name in names]]
        sums, counts = add_up(torch.tensor(both, dtype=torch.float64)).tolist()
        return _means(dict(zip(names, sums, strict=True)), dict(zip(names, counts, strict=True)))

    def state_dict(self) -> dict[str, Any]:
        """Everything since the last reset, as plain data and tensors."""
        return {
            "window": list(self.window),
            "recent": [dict(self.recent_sums), dict(self.recent_counts)],
            "sums": dict(self.sums),
            "counts": dict(self.counts),
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Load a state.

        Args:
            state: What `state_dict` returned.
        """
        self.window = [tuple(entry) for entry in state["window"]]
        self.recent_sums, self.recent_counts = map(dict, state["recent"])
        self.sums, self.counts = dict(state["sums"]), dict(state["counts"])


def _means(sums: Mapping[str, float], counts: Mapping[str, float]) -> dict[str, float]:
    return {name: sums[name] / counts[name] for name in sums if counts[name]}
