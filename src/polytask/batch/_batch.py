"""One batch on its way through a step, and access to the parts of what a loader yields."""

import itertools
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from polytask._checks import is_integer
from polytask._errors import UserError, hint
from polytask.batch._targets import Targets

Accessor = int | str | Callable[[Any], Any]


@dataclass
class Batch:
    """One batch, its labels counted.

    Attributes:
        inputs: The model's inputs.
        targets: Targets by task (`polytask.losses.Targets`), whatever a third-party criterion takes, or
            None.
        size: The number of rows.
        rows: The rows of each task, if the batch has task ids; None for a task whose rows are the
            whole batch.
        columns: Further arguments of metrics, by keyword; in a `JoinedBatch` by task.
        ids: The user's ids by column, each a tensor or list with one for each row.
    """

    inputs: Any
    targets: Any
    size: int
    rows: dict[str, Tensor | None] | None = None
    columns: dict[str, Any] = field(default_factory=dict)
    ids: dict[str, Any] = field(default_factory=dict)

    def inputs_of(self, name: str) -> Any:
        """The inputs that a task's outputs are for.

        Args:
            name: The task.
        """
        return take_rows(self.inputs, None if self.rows is None else self.rows[name])

    def columns_of(self, name: str) -> dict[str, Any]:
        """The further arguments of a task's metrics.

        Args:
            name: The task.
        """
        columns: dict[str, Any] = take_rows(self.columns, None if self.rows is None else self.rows[name])
        return columns

    def to(self, device: torch.device) -> "Batch":
        """The batch with its tensors on the device."""
        self.inputs = move(self.inputs, device)
        self.targets = move(self.targets, device)
        self.rows = move(self.rows, device)
        self.columns = move(self.columns, device)
        return self


class TaskBatches(dict[str, Any]):
    """The batches of one step from several tasks' loaders: by task a batch of its own data."""


class JoinedBatch(Batch):
    """Several tasks' own batches in one step: ``inputs`` by task, and their rows concatenated."""

    @classmethod
    def of(cls, parts: Mapping[str, Batch]) -> "JoinedBatch":
        """The batches as one.

        Args:
            parts: A batch for each task.

        Example:
            >>> parts = {"a": Batch(torch.ones(2), None, 2), "b": Batch(torch.zeros(1), None, 1)}
            >>> joined = JoinedBatch.of(parts)
            >>> joined.size, joined.rows["b"], joined.inputs_of("b")
            (3, tensor([2]), tensor([0.]))
        """
        ends = list(itertools.accumulate(part.size for part in parts.values()))
        return cls(
            {name: part.inputs for name, part in parts.items()},
            Targets.joined([part.targets for part in parts.values() if part.targets is not None]),
            ends[-1],
            {
                name: torch.arange(end - part.size, end)
                for (name, part), end in zip(parts.items(), ends, strict=True)
            },
            ids={
                key: [one for part in parts.values() for one in part.ids[key]]
                for key in dict.fromkeys(key for part in parts.values() for key in part.ids)
            },
        )

    def inputs_of(self, name: str) -> Any:
        """The inputs that a task's outputs are for.

        Args:
            name: The task.
        """
        return self.inputs[name]

    def columns_of(self, name: str) -> dict[str, Any]:
        """The further arguments of a task's metrics.

        Args:
            name: The task.
        """
        columns: dict[str, Any] = self.columns.get(name, {})
        return columns


def move(value: Any, device: torch.device) -> Any:
    """The value with every tensor in it on the device; dicts and lists are changed in place.

    Example:
        >>> move({"a": torch.ones(1)}, torch.device("cpu"))
        {'a': tensor([1.])}
    """
    if isinstance(value, Tensor):
        return value if value.device == device else value.to(device, non_blocking=True)
    if isinstance(value, dict):
        for key, entry in value.items():
            value[key] = move(entry, device)
        return value.to(device) if isinstance(value, Targets) else value
    if isinstance(value, tuple) and hasattr(value, "_fields"):
        return type(value)(*(move(entry, device) for entry in value))
    if isinstance(value, (list, tuple)):
        return type(value)(move(entry, device) for entry in value)
    if hasattr(value, "to") and not isinstance(value, type):
        return value.to(device)
    return value


def count_rows(value: Any) -> int:
    """The length of the first tensor with rows in the value; else of the first list of strings; else 1.

    Example:
        >>> count_rows({"name": ["a", "b", "c", "d"], "mask": None, "image": torch.zeros(4, 3)})
        4
    """
    tensors = (part for part in _leaves(value) if isinstance(part, Tensor) and part.ndim)
    strings = (part for part in _leaves(value) if isinstance(part, (list, tuple)))
    return next((len(part) for part in itertools.chain(tensors, strings)), 1)


def _leaves(value: Any) -> Iterator[Any]:
    """The parts of a value that hold no others, depth first; a list of strings is one part."""
    if (
        isinstance(value, (Tensor, str, bytes))
        or not hasattr(value, "__iter__")
        or (isinstance(value, (list, tuple)) and value and all(isinstance(entry, str) for entry in value))
    ):
        yield value
    else:
        for entry in value.values() if isinstance(value, Mapping) else value:
            yield from _leaves(entry)


def take_rows(value: Any, rows: Tensor | None) -> Any:
    """The value with some rows of every tensor in it, or all rows if None.

    Example:
        >>> take_rows([torch.arange(3)], torch.tensor([2, 0]))
        [tensor([2, 0])]
    """
    if rows is None:
        return value
    if isinstance(value, Tensor):
        return value[rows]
    if isinstance(value, Mapping):
        return {key: take_rows(entry, rows) for key, entry in value.items()}
    if isinstance(value, (list, tuple)):
        return [take_rows(entry, rows) for entry in value]
    return value


def check_accessor(accessor: Any, where: str, by_name: bool = False) -> None:
    """Raise if a value is no accessor.

    Args:
        accessor: An index, a key or dotted path, or a callable.
        where: The argument, for the message.
        by_name: Whether it may be a mapping to accessors.

    Raises:
        UserError: If it is something else.

    Example:
        >>> check_accessor({"digit": "labels.digit"}, "target_accessor", by_name=True)
    """
    if by_name and isinstance(accessor, Mapping):
        for name, own in accessor.items():
            check_accessor(own, f"{where}.{name}")
    elif not (isinstance(accessor, str) or is_integer(accessor) or callable(accessor)):
        kinds = "an index, a key, a dotted path or a callable" + (", or a mapping to them" if by_name else "")
        raise UserError(where, f"must be {kinds}", repr(accessor))


def access(batch: Any, accessor: Accessor, where: str) -> Any:
    """One part of a batch.

    Args:
        batch: What the loader yields.
        accessor: An index, a key, a dotted path of keys, indices and attributes, or a callable.
        where: The argument that the accessor came from, for the message.

    Raises:
        UserError: If there is no such part; with what the batch holds.

    Example:
        >>> access({"labels": {"digit": 7}}, "labels.digit", "target_accessor")
        7
    """
    if callable(accessor):
        return accessor(batch)
    found, part = find(batch, accessor)
    if not found:
        raise UserError(
            where, f"must name a part of the batch, not {accessor!r}", *_contents(batch, accessor)
        )
    return part


def find(batch: Any, accessor: int | str) -> tuple[bool, Any]:
    """Whether the batch has such a part, and the part."""
    if not isinstance(accessor, str) or (isinstance(batch, Mapping) and accessor in batch):
        return _step(batch, accessor)
    part: Any = batch
    for key in accessor.split("."):
        found, part = _step(part, key)
        if not found:
            return False, None
    return True, part


def _step(value: Any, key: int | str) -> tuple[bool, Any]:
    if isinstance(value, Mapping):
        return (True, value[key]) if key in value else (False, None)
    if isinstance(value, Sequence) and not isinstance(value, str):
        index = int(key) if str(key).lstrip("-").isdigit() else None
        if index is not None:
            return (True, value[index]) if -len(value) <= index < len(value) else (False, None)
    if isinstance(key, str) and not key.startswith("_") and hasattr(value, key):
        return True, getattr(value, key)
    return False, None


def _contents(batch: Any, accessor: int | str) -> tuple[str, str | None]:
    if isinstance(batch, Mapping):
        keys = [str(key) for key in batch]
        return f"a dict with the keys {', '.join(keys)}", hint(str(accessor), keys, "Keys")
    if isinstance(batch, (list, tuple)):
        return f"a {type(batch).__name__} of {len(batch)} parts", "Parts are numbered from 0"
    return f"a {type(batch).__name__}", "Name the part by an index, a key or a dotted path"


def describe(value: Any) -> str:
    """Shapes and dtypes, for a message.

    Example:
        >>> describe({"image": torch.zeros(2, 3)})
        '{image: a tensor of shape (2, 3) float32}'
    """
    if isinstance(value, Tensor):
        return f"a tensor of shape {tuple(value.shape)} {str(value.dtype).removeprefix('torch.')}"
    if isinstance(value, Mapping):
        return "{" + ", ".join(f"{key}: {describe(entry)}" for key, entry in value.items()) + "}"
    return type(value).__name__
