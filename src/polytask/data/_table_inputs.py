"""What a table's columns become before a model sees them."""

from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping
from typing import Any

import pyarrow as pa
from torch import Tensor


class TableInputs(ABC):
    """What a table's columns become before a model sees them; a base for your own.

    `TableColumns` is the one for numbers and categories.

    Attributes:
        revision: A number that changes whenever `encode` may answer otherwise than before.

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
    """The columns that `encode` needs."""
    revision: int = 0

    @abstractmethod
    def encode(self, table: pa.Table) -> Tensor | Mapping[str, Tensor]:
        """The model's inputs, a row of each tensor for each row of the table.

        Args:
            table: The columns, texts trimmed, null where a value is missing.
        """

    def learn(self, tables: Iterable[Any]) -> None:
        """Take from the training table what `encode` needs; nothing, where a subclass does not say.

        Args:
            tables: The parts of the table, one after the other.
        """
        self.revision += 1
