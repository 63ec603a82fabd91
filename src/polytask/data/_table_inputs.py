"""What turns a table's columns into a model's inputs."""

from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping
from typing import Any

import pyarrow as pa
from torch import Tensor


class TableInputs(ABC):
    """Base of what turns a table's columns into a model's inputs.

    `TableColumns` is the one for numbers and categories.

    Attributes:
        revision: A number that changes whenever the result of `encode` may change.

    Example:
        >>> import torch
        >>> class Lengths(TableInputs):
        ...     names = ("text",)
        ...     def encode(self, table):
        ...         return torch.tensor([[float(len(text))] for text in table["text"].to_pylist()])
        >>> Lengths().encode(pa.table({"text": ["ab", "c"]}))
        tensor([[2.],
                [1.]])
    """

    names: tuple[str, ...]
    """The columns that `encode` requires."""
    revision: int = 0

    @abstractmethod
    def encode(self, table: pa.Table) -> Tensor | Mapping[str, Tensor]:
        """The model's inputs, a row of each tensor for each row of the table.

        Args:
            table: The columns, strings trimmed, null if a value is missing.
        """

    def learn(self, tables: Iterable[Any]) -> None:
        """Learn from the training table what `encode` requires; nothing by default.

        Args:
            tables: The parts of the table, one after the other.
        """
        self.revision += 1
