"""From measured gradients to the update, by what a weighting is given."""

from abc import ABC, abstractmethod

import torch
from torch import Tensor

from polytask._errors import RunError
from polytask.gradients._backward_step import BackwardStep
from polytask.gradients._jacobian import Pairs, Rows
from polytask.gradients._levels import Measured, MeasuredRows
from polytask.weighting import GramianWeighting, JacobianAggregator, Weighting

Names = tuple[str, ...]
Scale = float | Tensor


class Combine(ABC):
    """One way from gradients to the update.

    Attributes:
        dense: Whether it needs explicit rows of all shared parameters.
        scale_heads: Whether parameters of one task alone see its weight.
        weights: Weights of the last step that made some, by task.
    """

    dense: bool = False

    def __init__(self, scale_heads: bool) -> None:
        self.scale_heads = scale_heads
        self.weights: dict[str, Tensor] = {}

    @abstractmethod
    def pairs(self, step: BackwardStep, measured: Measured) -> Pairs:
        """Parameters and their gradients.

        Args:
            step: The present tasks, their losses and the scale.
            measured: Their gradients, of scaled losses.
        """

    def forget(self) -> None:
        """Let go of batches that no update was made of."""
        return

    def keep(self, step: BackwardStep, weights: Tensor) -> Tensor:
        """Remember the weights, those of the first rank on each."""
        weights = weights if step.ranks is None else step.ranks.first(weights)
        self.weights.update(zip(step.names, weights.unbind(), strict=True))
        return weights


class ByGramian(Combine):
    """Weights from the Gramian of one batch.

    Args:
        weighting: What makes them.
        scale_heads: Whether parameters of one task alone see them.
    """

    def __init__(self, weighting: GramianWeighting, scale_heads: bool) -> None:
        super().__init__(scale_heads)
        self.weighting = weighting

    def pairs(self, step: BackwardStep, measured: Measured) -> Pairs:
        """By the weights."""
        names, losses, scale = step.names, step.losses, step.scale
        gramian = unscaled(measured.gramian(), scale, 2)
        if overflowed(gramian, scale):
            return measured.update(torch.full_like(losses, torch.nan), True)
        check_finite(gramian.diagonal(), names, self.weighting)
        weights = self.keep(step, self.weighting(gramian, names, losses=losses))
        return measured.update(weights, self.scale_heads)


class ByBatches(Combine):
    """Weights from the product of the Jacobians of two batches, for the update of a third.

    Args:
        weighting: What makes them.
        scale_heads: Whether parameters of one task alone see them.
    """

    dense = True

    def __init__(self, weighting: GramianWeighting, scale_heads: bool) -> None:
        super().__init__(scale_heads)
        self.weighting = weighting
        self.forget()

    def forget(self) -> None:
        """Let go of the batches before."""
        self.held: list[Rows] = []
        self.lost = False

    def pairs(self, step: BackwardStep, measured: Measured) -> Pairs:
        """Nothing, until the last batch has come."""
        assert isinstance(measured, MeasuredRows)
        names, rows = step.names, measured.rows
        self.lost |= overflowed(rows.norms(), step.scale)
        if not self.lost:
            check_finite(rows.norms(), names, self.weighting)
        if len(self.held) + 1 < self.weighting.batches_per_step:
            self.held.append(rows.scaled(1 / step.scale))
            return []
        # A task that was absent from a batch has no gradient there; one that is absent now, no weight.
        held, lost = [batch.only(names) for batch in self.held], self.lost
        self.forget()
        if lost:
            return measured.update(torch.full_like(step.losses, torch.nan), True)
        first, second = (batch.place(names, rows.parameters) for batch in held)
        weights = self.weighting(first.jacobian @ second.jacobian.mT, names, losses=step.losses)
        weights = self.keep(step, weights)
        return measured.update(weights, self.scale_heads)


class ByJacobian(Combine):
    """An update from the whole Jacobian.

    Args:
        aggregator: What makes it.
        scale_heads: Whether parameters of one task alone see the aggregator's head weights.
    """

    dense = True

    def __init__(self, aggregator: JacobianAggregator, scale_heads: bool) -> None:
        super().__init__(scale_heads)
        self.aggregator = aggregator

    def pairs(self, step: BackwardStep, measured: Measured) -> Pairs:
        """By the update."""
        assert isinstance(measured, MeasuredRows)
        names, losses, scale = step.names, step.losses, step.scale
        rows = measured.rows
        if not _is_one(scale) and overflowed(rows.norms(), scale):
            return measured.update(torch.full_like(losses, torch.nan), True)
        update = self.aggregator(unscaled(rows.jacobian, scale, 1), names, losses=losses) * scale
        factors = self.aggregator.head_weights(losses, names) if self.scale_heads else None
        return rows.unflatten(update) + rows.heads(factors)


def unscaled(values: Tensor, scale: Scale, power: int) -> Tensor:
    """Values of scaled losses, without the scale."""
    return values if _is_one(scale) else values / scale**power


def overflowed(values: Tensor, scale: Scale) -> bool:
    """Whether a loss scale was too large, which the scaler finds in ``.grad`` and mends."""
    return not _is_one(scale) and not bool(values.isfinite().all())


def _is_one(scale: Scale) -> bool:
    return not isinstance(scale, Tensor) and scale == 1


def check_finite(values: Tensor, names: Names, weighting: Weighting) -> None:
    """Raise where a task's value is not finite; on other devices than the CPU the weighting's check does.

    Raises:
        RunError: With the tasks at fault.
    """
    if weighting.deferred or values.device.type != "cpu":
        return
    bad = [name for name, fine in zip(names, values.isfinite().tolist(), strict=True) if not fine]
    if bad:
        found = f"NaN or infinity for {', '.join(bad)}"
        raise RunError(type(weighting).__name__, "gradients must be finite", found)
