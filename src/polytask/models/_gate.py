"""Gates: the weights of the experts for a task."""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from polytask._checks import is_integer
from polytask._errors import UserError, hint
from polytask.models._argument_checks import is_size
from polytask.models._experts import Factory, make
from polytask.models._mlp import MLP

SHARED = "sharing"
"""The name under which the gate of a `PLE` level's shared part is recorded; no task may have this name."""


class Gate(nn.Module):
    """Weights of experts, ``softmax(logits(x))``.

    Args:
        logits: From the gate's input to one number for each expert.
        task: The gate's task.
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
            x: What the gate receives.
        """
        assert self.logits is not None
        return torch.softmax(checked(self.logits(x), len(self.experts)), dim=-1)


def checked(logits: Any, size: int) -> Tensor:
    """The output of a gate, after its shape was checked.

    Raises:
        UserError: If it does not.
    """
    if not isinstance(logits, Tensor) or logits.dim() < 2 or logits.shape[-1] != size:
        found = f"shape {tuple(logits.shape)}" if isinstance(logits, Tensor) else f"a {type(logits).__name__}"
        raise UserError("gate", f"must return a tensor of shape (rows, {size})", found)
    return logits


def make_logits(gate: int | Factory, size: int, where: str = "gate") -> nn.Module:
    """The module that computes a gate's logits.

    Args:
        gate: Values per sample of a linear gate's input, or a callable that returns a module for the number
            of values to return.
        size: The number of values to return.
        where: The argument's name, for messages.

    Raises:
        UserError: If it is neither.
    """
    if is_size(gate):
        return MLP(int(gate), [], size)
    if not callable(gate):
        raise UserError(
            where, "must be an integer of at least 1, or a callable that returns a module", repr(gate)
        )
    return make(gate, where, size)


class GateInput(nn.Module):
    """The input of the gates: that of the model, or a feature of it.

    Args:
        feature: None for the input itself; a key or index in it; or a module that is called with it.

    Raises:
        UserError: If it is something else.
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
            rule = f"must be an entry of the input, which has no entry {self.feature!r}"
            raise UserError("gate_input", rule, found, fix) from error


def _checked_feature(feature: object) -> nn.Module | str | int | None:
    if feature is None or isinstance(feature, nn.Module | str) or is_integer(feature):
        return feature
    raise UserError("gate_input", "must be a key, an index or a module", f"a {type(feature).__name__}")
