"""Choices that follow from learned numbers, and lead through other modules in evaluation."""

from abc import ABC, abstractmethod
from typing import Any, Self

import torch
from torch import nn


class Choice(nn.Module, ABC):
    """A module that chooses by its parameters.

    An export cannot read values, and what it exports cannot change: it is given what was chosen when the
    module was last put into evaluation, or last loaded in it. A call reads the parameters as they are, since
    a callback may have put averaged ones into their place.
    """

    _kept: list[int] | None = None

    @abstractmethod
    def choose(self) -> list[int]:
        """What the parameters choose; read on the host."""

    def chosen(self) -> list[int]:
        """What to go on with in evaluation."""
        if self._kept is not None and is_exporting():
            return self._kept
        return self.choose()

    def train(self, mode: bool = True) -> Self:
        """Keep what is chosen for an export."""
        super().train(mode)
        self._kept = None if mode else self.choose()
        return self

    def _load_from_state_dict(self, *given: Any) -> None:
        super()._load_from_state_dict(*given)
        if not self.training:
            self._kept = self.choose()


def is_exporting() -> bool:
    """Whether the call is that of an export, which traces without bytecode."""
    return torch.compiler.is_compiling() and not torch.compiler.is_dynamo_compiling()
