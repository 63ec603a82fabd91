"""Choices that follow from learned numbers, and decide which modules run in evaluation."""

from abc import ABC, abstractmethod
from typing import Any, Self

import torch
from torch import nn


class Choice(nn.Module, ABC):
    """A module that chooses by its parameters.

    An export cannot read values, and what it exports cannot change: it uses the choice that was made when the
    module was last put into evaluation, or last loaded in it. A call reads the current parameters, since a
    callback may have replaced them with averaged ones.
    """

    _kept: list[int] | None = None

    @abstractmethod
    def choose(self) -> list[int]:
        """The choice by the current parameters; read on the host."""

    def chosen(self) -> list[int]:
        """The choice that is used in evaluation."""
        if self._kept is not None and is_exporting():
            return self._kept
        return self.choose()

    def train(self, mode: bool = True) -> Self:
        """Set the mode, and keep the choice for an export."""
        super().train(mode)
        self._kept = None if mode else self.choose()
        return self

    def _load_from_state_dict(self, *given: Any) -> None:
        super()._load_from_state_dict(*given)
        if not self.training:
            self._kept = self.choose()


def is_exporting() -> bool:
    """Whether the call is part of an export, which traces without bytecode."""
    return torch.compiler.is_compiling() and not torch.compiler.is_dynamo_compiling()
