"""What turns a table's columns into a model's inputs."""

import hashlib
from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping
from types import MappingProxyType
from typing import Any

import pyarrow as pa
from torch import Tensor

from polytask._tasks import TASK_TYPES, TaskType


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
    # By the digest of a task's name the number of its type in TASK_TYPES, from 1: 0 is what unused
    # entries of a saved state are.
    _target_types: Mapping[int, int] = MappingProxyType({})

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

    def unseen(self, table: pa.Table, inputs: Any) -> dict[str, "Unseen"]:
        """By column, how many of the values mean nothing to the model; none by default.

        A data set warns of them, and raises an error for a column none of whose values is known.

        Args:
            table: What `encode` was given.
            inputs: What it returned.
        """
        return {}

    def learn_target_types(self, types: Mapping[str, TaskType]) -> None:
        """Remember which tasks have classes and which have values in the training data.

        Args:
            types: By task ``regression`` or ``classification``.
        """
        learned = {digest(task): TASK_TYPES.index(kind) + 1 for task, kind in types.items()}
        if learned:
            self._target_types = {**self._target_types, **learned}

    def target_type(self, task: str) -> TaskType | None:
        """What a task's targets were in the training data; None if that is not known.

        Args:
            task: The task.
        """
        known = self._target_types.get(digest(task))
        return None if known is None else TASK_TYPES[known - 1]


class Unseen:
    """How many values of a column were not in the training data.

    Args:
        unknown: The number of these values.
        values: The number of all values that are not missing.
        known: The number of different values that are known.
        example: One of those that are not.

    Example:
        >>> (Unseen(1, 4, 9, "Oslo") + Unseen(0, 2, 9)).unknown
        1
    """

    def __init__(self, unknown: int, values: int, known: int, example: str | None = None) -> None:
        self.unknown, self.values, self.known, self.example = unknown, values, known, example

    def __add__(self, other: "Unseen") -> "Unseen":
        example = self.example if self.example is not None else other.example
        return Unseen(self.unknown + other.unknown, self.values + other.values, other.known, example)


def digest(text: str) -> int:
    """64 bits of a string, never 0.

    Example:
        >>> digest("a") == digest("a") != digest("b")
        True
    """
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "little", signed=True) or 1
