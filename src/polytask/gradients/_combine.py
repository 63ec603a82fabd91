"""From the tasks' gradients to the update, for each kind of weighting."""

from abc import ABC, abstractmethod

import torch
from torch import Tensor

from polytask._errors import RunError
from polytask.gradients._backward_step import BackwardStep
from polytask.gradients._jacobian import Pairs, Rows
from polytask.gradients._levels import Measured, MeasuredRows
from polytask.weighting import GramianWeighting, JacobianAggregator, Weighting

Names = tuple[str, ...]
LossScale = float | Tensor


class Combine(ABC):
    """A way from the tasks' gradients to the update.

    Attributes:
        dense: Whether it needs explicit rows of all shared parameters.
        scale_heads: Whether parameters of one task alone are scaled by its weight.
        weights: The last weights that were computed, by task.
        finite: The present tasks of the last step, and whether their gradients were finite, on the device;
            None if that is not known.
    """

    dense: bool = False

    def __init__(self, scale_heads: bool) -> None:
        self.scale_heads = scale_heads
        self.weights: dict[str, Tensor] = {}
        self.finite: tuple[Names, Tensor] | None = None

    @abstractmethod
    def pairs(self, step: BackwardStep, measured: Measured) -> Pairs:
        """Parameters and their gradients.

        Args:
            step: The present tasks, their losses and the scale.
            measured: Their gradients, of scaled losses.
        """

    def forget(self) -> None:
        """Discard batches that no update was made of."""
        return

    def keep(self, step: BackwardStep, weights: Tensor) -> Tensor:
        """Keep the weights; every rank takes those of the first."""
        weights = weights if step.ranks is None else step.ranks.first(weights)
        self.weights.update(zip(step.names, weights.unbind(), strict=True))
        return weights


class ByGramian(Combine):
    """Weights from the Gramian of one batch.

    Args:
        weighting: The weighting.
        scale_heads: Whether parameters of one task alone are scaled by its weight.
    """

    def __init__(self, weighting: GramianWeighting, scale_heads: bool) -> None:
        super().__init__(scale_heads)
        self.weighting = weighting

    def pairs(self, step: BackwardStep, measured: Measured) -> Pairs:
        """The weighted sum of the gradients."""
        names, losses, scale = step.names, step.losses, step.scale
        gramian = unscaled(measured.gramian(), scale, 2)
        self.finite = names, gramian.diagonal().isfinite()
        if overflowed(gramian, scale):
            return measured.update(torch.full_like(losses, torch.nan), True)
        check_finite(gramian.diagonal(), names, self.weighting)
        weights = self.keep(step, self.weighting(gramian, names, losses=losses))
        return measured.update(weights, self.scale_heads)


class ByBatches(Combine):
    """Weights from the product of the Jacobians of two batches, for the update of a third.

    Args:
        weighting: The weighting.
        scale_heads: Whether parameters of one task alone are scaled by its weight.
    """

    dense = True

    def __init__(self, weighting: GramianWeighting, scale_heads: bool) -> None:
        super().__init__(scale_heads)
        self.weighting = weighting
        self.forget()

    def forget(self) -> None:
        """Discard the earlier batches."""
        self.held: list[Rows] = []
        self.lost = False

    def pairs(self, step: BackwardStep, measured: Measured) -> Pairs:
        """Nothing before the last batch; then the weighted sum of its gradients."""
        assert isinstance(measured, MeasuredRows)
        names, rows = step.names, measured.rows
        self.finite = names, self._finite(names, rows.norms().isfinite())
        self.lost |= overflowed(rows.norms(), step.scale)
        if not self.lost:
            check_finite(rows.norms(), names, self.weighting)
        if len(self.held) + 1 < self.weighting.batches_per_step:
            self.held.append(rows.scaled(1 / step.scale))
            return []
        # A task that was absent from an earlier batch has a row of 0 there; one absent now has no weight.
        held, lost = [batch.only(names) for batch in self.held], self.lost
        self.forget()
        if lost:
            return measured.update(torch.full_like(step.losses, torch.nan), True)
        first, second = (batch.embed(names, rows.parameters) for batch in held)
        weights = self.weighting(first.jacobian @ second.jacobian.mT, names, losses=step.losses)
        weights = self.keep(step, weights)
        return measured.update(weights, self.scale_heads)

    def _finite(self, names: Names, here: Tensor) -> Tensor:
        """Whether a task's gradients were finite in all batches of the step so far."""
        before: dict[str, Tensor] = {}
        if self.held and self.finite is not None:
            before = dict(zip(self.finite[0], self.finite[1].unbind(), strict=True))
        return torch.stack([each & before.get(name, each) for name, each in zip(names, here, strict=True)])


class ByJacobian(Combine):
    """An update from the whole Jacobian.

    Args:
        aggregator: The aggregator.
        scale_heads: Whether parameters of one task alone are scaled by the aggregator's head weights.
    """

    dense = True

    def __init__(self, aggregator: JacobianAggregator, scale_heads: bool) -> None:
        super().__init__(scale_heads)
        self.aggregator = aggregator

    def pairs(self, step: BackwardStep, measured: Measured) -> Pairs:
        """The aggregator's update."""
        assert isinstance(measured, MeasuredRows)
        names, losses, scale = step.names, step.losses, step.scale
        rows = measured.rows
        self.finite = names, rows.norms().isfinite()
        if not _is_one(scale) and overflowed(rows.norms(), scale):
            return measured.update(torch.full_like(losses, torch.nan), True)
        update = self.aggregator(unscaled(rows.jacobian, scale, 1), names, losses=losses) * scale
        factors = self.aggregator.head_weights(losses, names) if self.scale_heads else None
        return rows.unflatten(update) + rows.heads(factors)


def unscaled(values: Tensor, scale: LossScale, power: int) -> Tensor:
    """Values of scaled losses, without the scale."""
    return values if _is_one(scale) else values / scale**power


def overflowed(values: Tensor, scale: LossScale) -> bool:
    """Whether a loss scale was too large, which the scaler detects in ``.grad`` and corrects."""
    return not _is_one(scale) and not bool(values.isfinite().all())


def _is_one(scale: LossScale) -> bool:
    return not isinstance(scale, Tensor) and scale == 1


def check_finite(values: Tensor, names: Names, weighting: Weighting) -> None:
    """Raise if a task's value is not finite; on devices other than the CPU, `Weighting.check` does so.

    Raises:
        RunError: With the tasks at fault.
    """
    if weighting.deferred or values.device.type != "cpu":
        return
    bad = [name for name, fine in zip(names, values.isfinite().tolist(), strict=True) if not fine]
    if bad:
        found = f"NaN or infinity for {', '.join(bad)}"
        raise RunError(type(weighting).__name__, "gradients must be finite", found)
