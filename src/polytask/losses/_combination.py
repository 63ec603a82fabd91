"""How the tasks' losses become one total, and with which weights."""

import itertools
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from polytask._tasks import SHARING
from polytask.losses._measurement import LossMeasurement
from polytask.weighting import GramianWeighting, JacobianAggregator, LossWeighting, Weighting


class LossCombination(nn.Module):
    """Multiplies the tasks' losses by their ``loss_weights`` and makes one total of them.

    It has no state of its own in a checkpoint: the weighting's state is the criterion's, and ``loss_weights``
    are arguments.

    Args:
        weighting: How the tasks combine.
        measurement: Holds the losses of the last batch.
        own_total: Whether the criterion's total is made here, and not by a ``forward`` of a subclass.

    Attributes:
        factors: The ``loss_weights``, ``(tasks,)``; None if all are 1 by default.
        own_total: As given.

    Example:
        >>> from polytask.losses import MultiTaskLoss
        >>> losses = {"a": nn.MSELoss(), "b": nn.MSELoss()}
        >>> combination = MultiTaskLoss(losses, loss_weights={"b": 0.5}).combination
        >>> combination.total(torch.tensor([1.0, 4.0]), ("a", "b"))
        tensor(3.)
        >>> combination.own_and_effective_weights()
        (('a', 'b'), tensor([1., 1.]), tensor([1.0000, 0.5000]))
    """

    factors: Tensor | None

    def __init__(self, weighting: Weighting, measurement: LossMeasurement, own_total: bool) -> None:
        super().__init__()
        # In a tuple, since it is a submodule of the criterion already.
        self._weighting = (weighting,)
        self._measurement = measurement
        self.own_total = own_total
        self._used: tuple[tuple[str, ...], Tensor] | None = None
        self._derived: tuple[tuple[str, ...], Tensor] | None = None
        self.register_buffer("factors", None, persistent=False)
        if weighting.gradients is not None:
            weighting.register_forward_hook(self._keep_weights, with_kwargs=True)

    @property
    def weighting(self) -> Weighting:
        """How the tasks combine."""
        return self._weighting[0]

    @property
    def used(self) -> bool:
        """Whether a weighting that requires gradients has made weights."""
        return self._used is not None

    def set_factors(self, loss_weights: Mapping[str, float] | None) -> None:
        """Set the factors of the losses.

        Args:
            loss_weights: The factors of all tasks, in order; None for none.
        """
        self.factors = None if loss_weights is None else torch.tensor(list(loss_weights.values()))

    def weighed(self, means: Tensor, names: Sequence[str]) -> Tensor:
        """The losses that the weighting sees, ``(tasks,)``: times their ``loss_weights``.

        Args:
            means: Losses of the present tasks, ``(tasks,)``.
            names: Which tasks these are.
        """
        return means if self.factors is None else means * self._factors(names)

    def total(self, means: Tensor, names: Sequence[str]) -> Tensor:
        """The scalar to minimise.

        Args:
            means: Losses of the present tasks before ``loss_weights``, ``(tasks,)``.
            names: Which tasks these are.
        """
        losses = self.weighed(means, names)
        if not isinstance(self.weighting, LossWeighting):
            return losses.sum()
        total: Tensor = self.weighting(losses, names)
        return total

    def with_total(self, losses: Mapping[str, float]) -> dict[str, float]:
        """Losses by task with a ``total`` that no weighting changes: their sum, times ``loss_weights``.

        Args:
            losses: Losses by task, and ``total``; ``sharing``, a model's own penalty, is added as it is.

        Example:
            >>> from polytask.losses import MultiTaskLoss
            >>> criterion = MultiTaskLoss({"a": nn.MSELoss(), "b": nn.MSELoss()}, loss_weights={"b": 0.5})
            >>> criterion.combination.with_total({"a": 1.0, "b": 4.0, "total": 0.0})
            {'a': 1.0, 'b': 4.0, 'total': 3.0}
        """
        names = self._present(losses)
        if not names:
            return dict(losses)
        total = float(self.weighed(self._means(losses, names), names).sum())
        return {**losses, "total": total + losses.get(SHARING, 0.0)}

    def objective(self, losses: Mapping[str, float]) -> float | None:
        """The scalar that the weighting makes of losses; None without a task's loss.

        Args:
            losses: Losses by task; other entries are ignored.

        Example:
            >>> from polytask.losses import MultiTaskLoss
            >>> from polytask.weighting import GLS
            >>> criterion = MultiTaskLoss({"a": nn.MSELoss(), "b": nn.MSELoss()}, weighting=GLS())
            >>> criterion.combination.objective({"a": 1.0, "b": 4.0})
            2.0
        """
        names = self._present(losses)
        if not names:
            return None
        with torch.no_grad():
            return float(self.total(self._means(losses, names), names))

    def _present(self, losses: Mapping[str, float]) -> tuple[str, ...]:
        return tuple(name for name in self._measurement.names if name in losses)

    def _means(self, losses: Mapping[str, float], names: Sequence[str]) -> Tensor:
        return torch.tensor([losses[name] for name in names], device=self._device())

    def derive_weights(self, total: Tensor, losses: Mapping[str, Tensor]) -> None:
        """Find out with which weights a total was made of the losses elsewhere: d total / d loss.

        Tasks on whose losses the total does not depend are left out, and all of them if the losses have no
        graph.

        Args:
            total: The total, with its graph, which is kept.
            losses: The losses of the present tasks, with their graphs.

        Example:
            >>> from polytask.losses import MultiTaskLoss
            >>> combination = MultiTaskLoss({"a": nn.MSELoss(), "b": nn.MSELoss()}).combination
            >>> a, b = torch.ones(2, requires_grad=True).unbind()
            >>> combination.derive_weights(a**2 + 3 * b, {"a": a, "b": b})
            >>> combination.own_and_effective_weights()[2]
            tensor([2., 3.])
        """
        known = {name: loss for name, loss in losses.items() if loss.requires_grad}
        given = list(known.values())
        found = torch.autograd.grad(total, given, retain_graph=True, allow_unused=True) if given else ()
        used = {name: one for name, one in zip(known, found, strict=True) if one is not None}
        weights = torch.stack([one.detach() for one in used.values()]) if used else total.new_zeros(0)
        self._derived = tuple(used), weights

    def own_and_effective_weights(self) -> tuple[tuple[str, ...], Tensor, Tensor]:
        """The tasks, their weights before ``loss_weights``, and the effective ones; ``(tasks,)`` each.

        The effective weight of a task is d total / d loss at its last loss. The tensors are on the device. If
        the total is made by a ``forward`` of a subclass, there are none before `derive_weights`.
        """
        if self._derived is None and not self.own_total and self.weighting.gradients is None:
            self._derived = (), self._ones()[:0]
        if self._derived is not None:
            names, effective = self._derived
            return names, effective / self._factors(names), effective
        names, own = self._own_weights()
        return names, own, own * self._factors(names)

    def _own_weights(self) -> tuple[tuple[str, ...], Tensor]:
        tasks, last = self._measurement.names, self._measurement.last
        if not isinstance(self.weighting, LossWeighting):
            return (tasks, self._ones()) if self._used is None else self._used
        names, means = (last.names, last.means) if last else (tasks, self._ones())
        return names, self.weighting.weights(self.weighed(means, names), names)

    def _factors(self, names: Sequence[str]) -> Tensor | float:
        if self.factors is None:
            return 1.0
        columns = self.weighting.columns(names)
        return self.factors if columns is None else self.factors[columns]

    def _ones(self) -> Tensor:
        return torch.ones(len(self._measurement.names), device=self._device())

    def _device(self) -> torch.device | None:
        weighting, last = self.weighting, self._measurement.latest
        state = next(itertools.chain(weighting.parameters(), weighting.buffers(), self.buffers()), None)
        if state is not None:
            return state.device
        return None if last is None else last.sums.device

    def _keep_weights(self, weighting: Weighting, given: Any, named: dict[str, Any], result: Tensor) -> None:
        names = named.get("names", given[1] if len(given) > 1 else None)
        names = weighting.names if names is None else tuple(names)
        if isinstance(weighting, GramianWeighting):
            self._used = names, result
        elif isinstance(weighting, JacobianAggregator):
            losses = named.get("losses")
            losses = torch.ones(len(names), device=result.device) if losses is None else losses.detach()
            self._used = names, weighting.head_weights(losses, names)
