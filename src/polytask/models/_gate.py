"""Gates: what decides how much each expert counts for a task."""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from polytask._checks import is_integer
from polytask._errors import UserError, hint
from polytask.models._checks import is_size
from polytask.models._experts import Factory, make
from polytask.models._mlp import MLP

SHARED = "sharing"
"""What the gate of the shared experts of a `PLE` level is recorded under; no task may be called so."""


class Gate(nn.Module):
    """Weights of experts, ``softmax(logits(x))``.

    Args:
        logits: From the gate's input to one number for each expert.
        task: The task it decides for.
        experts: The experts' names.
    """

    def __init__(self, logits: nn.Module | None, task: str, experts: Sequence[str]) -> None:
        super().__init__()
        self.logits = logits
        self.task = task
        self.experts = tuple(experts)

    def forward(self, x: Any) -> Tensor:
        """Weights ``(rows, experts)``, which sum to one.

        Args:
            x: What the gate looks at.
        """
        assert self.logits is not None
        return torch.softmax(checked(self.logits(x), len(self.experts)), dim=-1)


def checked(logits: Any, size: int) -> Tensor:
    """What a gate returned, once its last dimension fits.

    Raises:
        UserError: Where it does not.
    """
    if not isinstance(logits, Tensor) or logits.dim() < 2 or logits.shape[-1] != size:
        found = f"shape {tuple(logits.shape)}" if isinstance(logits, Tensor) else f"a {type(logits).__name__}"
        raise UserError("gate", f"must return a tensor of shape (rows, {size})", found)
    return logits


def make_logits(gate: int | Factory, size: int, where: str = "gate") -> nn.Module:
    """The module that gives a gate its numbers.

    Args:
        gate: Values per sample of what a linear gate looks at, or something that makes a module when called
            with the number of values to return.
        size: The number of values to return.
        where: What the user calls it.

    Raises:
        UserError: Where it is neither.
    """
    if is_size(gate):
        return MLP(int(gate), [], size)
    if isinstance(gate, int) or is_integer(gate):
        raise UserError(where, "must be an integer of at least 1, or make a module", repr(gate))
    return make(gate, where, size)


class GateInput(nn.Module):
    """What gates look at: the input, or a feature of it.

    Args:
        feature: None for the input itself; a key or place in it; or a module that is called with it.

    Raises:
        UserError: Where it is something else.
    """

    def __init__(self, feature: nn.Module | str | int | None = None) -> None:
        super().__init__()
        self.feature = _checked_feature(feature)

    def forward(self, x: Any) -> Any:
        """The feature.

        Args:
            x: The input.
        """
        if self.feature is None:
            return x
        if isinstance(self.feature, nn.Module):
            return self.feature(x)
        try:
            return x[self.feature]
        except (KeyError, IndexError, TypeError) as error:
            found = f"a {type(x).__name__}"
            fix = hint(str(self.feature), map(str, x), "Keys") if isinstance(x, Mapping) else None
            rule = f"the input has no entry {self.feature!r}"
            raise UserError("gate_input", rule, found, fix) from error


def _checked_feature(feature: object) -> nn.Module | str | int | None:
    if feature is None or isinstance(feature, nn.Module | str) or is_integer(feature):
        return feature
    raise UserError("gate_input", "must be a key, a place or a module", f"a {type(feature).__name__}")
