"""Numeric and categorical columns: scaled and numbered as in training, and stored in the model."""

import hashlib
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from polytask._checks import check_integer
from polytask._errors import UserError
from polytask.data._table_inputs import TableInputs
from polytask.data._table_values import as_numbers, as_text

_BLOCK = 8192


class TableColumns(TableInputs, nn.Module):
    r"""Numbers scaled to mean 0 and deviation 1, and categories embedded; the first layer of a model.

    A data set with ``train=True`` makes it learn means, deviations and categories. They are in its
    ``state_dict``: as a part of the model it stores them in every checkpoint, so that new data is encoded as
    the training data was.

    `encode`, called by the data set, returns :math:`(x - \mu) / \sigma` and 0 for a missing number, and
    numbers the categories from 1, the most frequent first. 0 is a missing category, one that training did
    not have, or one beyond the ``max_categories`` most frequent ones. `forward`, called by the model,
    concatenates the numbers and the embeddings of the categories; 0 is embedded as zeros.

    Args:
        numeric: Columns of numbers.
        categorical: Columns of categories, strings or integers.
        max_categories: The largest number of categories of a column that are distinguished.
        embedding_dim: Features of a category.

    Shape:
        - Input of `forward`: what `encode` returns: ``(N, numeric)``, or, with categorical columns, a dict
          with ``numeric`` ``(N, numeric)`` and ``categories`` ``(N, categorical)``, int64.
        - Output: ``(N, output_dim)``, ``output_dim = numeric + categorical * embedding_dim``.

    Raises:
        UserError: If no column is named or one twice, a size is below 1, or nothing was learned yet.

    Example:
        >>> columns = TableColumns(["age"], ["city"], embedding_dim=4)
        >>> columns.learn([pa.table({"age": [20, 40], "city": ["Bern", "Rome"]})])
        >>> inputs = columns.encode(pa.table({"age": [40, None], "city": ["Rome", "Oslo"]}))
        >>> inputs["numeric"].tolist(), inputs["categories"].tolist()
        ([[1.0], [0.0]], [[2], [0]])
        >>> columns(inputs).shape, columns.output_dim
        (torch.Size([2, 5]), 5)
    """

    def __init__(
        self,
        numeric: Sequence[str] = (),
        categorical: Sequence[str] = (),
        *,
        max_categories: int = 100,
        embedding_dim: int = 8,
    ) -> None:
        super().__init__()
        self.numeric, self.categorical = tuple(numeric), tuple(categorical)
        self.names = (*self.numeric, *self.categorical)
        _check(self.names)
        self.max_categories = check_integer(max_categories, "TableColumns.max_categories", 1)
        self.embedding_dim = check_integer(embedding_dim, "TableColumns.embedding_dim", 1)
        self.output_dim = len(self.numeric) + len(self.categorical) * self.embedding_dim
        rows = len(self.categorical) * (self.max_categories + 1)
        self.embedding = nn.Embedding(rows, self.embedding_dim) if self.categorical else None
        self.revision = 0
        self._mean = np.zeros(len(self.numeric))
        self._deviation = np.zeros(len(self.numeric))
        self._categories = np.zeros((len(self.categorical), self.max_categories), np.int64)

    # ---- for the data set ---------------------------------------------------------------------

    def learn(self, tables: Iterable[pa.Table]) -> None:
        """Learn means, deviations and categories from the training table.

        Args:
            tables: Its parts, one after the other.

        Raises:
            UserError: If a column of numbers has an infinite one or none, or holds no numbers.
        """
        moments = _Moments(self.numeric)
        counts: list[Counter[str]] = [Counter() for _ in self.categorical]
        for table in tables:
            moments.add(table)
            for name, count in zip(self.categorical, counts, strict=True):
                for entry in pc.value_counts(as_text(table[name]).drop_null()).to_pylist():
                    count[entry["values"]] += entry["counts"]
        self._mean, self._deviation = moments.mean_and_deviation()
        self._categories = np.zeros_like(self._categories)
        for row, count in zip(self._categories, counts, strict=True):
            # Ties are broken by the string, so that the order of the files makes no difference.
            frequent = sorted(count, key=lambda name: (-count[name], name))[: self.max_categories]
            row[: len(frequent)] = [_digest(name) for name in frequent]
        self.revision += 1

    def encode(self, table: pa.Table) -> Tensor | Mapping[str, Tensor]:
        """The numbers, scaled, and the categories, numbered.

        Args:
            table: The columns.

        Raises:
            UserError: If nothing was learned yet, or a column of numbers holds something else.
        """
        if not self.revision:
            raise UserError(
                "TableColumns",
                "must learn from training data first",
                "no learned state",
                "Make the data set with train=True, or load a checkpoint of a model with it as a layer",
            )
        numeric = torch.from_numpy(self._numeric(table))
        if not self.categorical:
            return numeric
        numbers = [self._numbered(table[name], i) for i, name in enumerate(self.categorical)]
        return {"numeric": numeric, "categories": torch.from_numpy(np.stack(numbers, axis=1))}

    def _numeric(self, table: pa.Table) -> NDArray[np.float32]:
        columns = [as_numbers(table[name], name) for name in self.numeric]
        scaled = np.empty((len(table), len(columns)), np.float32)
        # A block of columns stays in the cache while it is transposed into rows.
        for begin in range(0, len(table), _BLOCK):
            rows = slice(begin, begin + _BLOCK)
            block = np.empty((len(columns), len(scaled[rows])), np.float32)
            for i, column in enumerate(columns):
                # In float64: float32 cannot represent a date in seconds.
                values = column[rows] - self._mean[i]
                values /= self._deviation[i]
                values[np.isnan(values)] = 0
                block[i] = values
            scaled[rows] = block.T
        return scaled

    def _numbered(self, column: Any, index: int) -> NDArray[np.int64]:
        known = {int(digest): i for i, digest in enumerate(self._categories[index], 1) if digest}
        strings = pc.dictionary_encode(as_text(column).combine_chunks())
        if isinstance(strings, pa.ChunkedArray):
            strings = strings.combine_chunks()
        numbers = [known.get(_digest(name), 0) for name in strings.dictionary.to_pylist()]
        indices = pc.fill_null(strings.indices, len(numbers)).to_numpy(zero_copy_only=False)
        numbered: NDArray[np.int64] = np.array([*numbers, 0], np.int64)[indices]
        return numbered

    # ---- for the model ------------------------------------------------------------------------

    def forward(self, inputs: Any) -> Tensor:
        """Numbers and embedded categories, concatenated; see Shape.

        Args:
            inputs: What `encode` returned.
        """
        if self.embedding is None:
            numbers: Tensor = inputs
            return numbers
        categories = inputs["categories"]
        offsets = torch.arange(len(self.categorical), device=categories.device) * (self.max_categories + 1)
        embedded = self.embedding(categories + offsets) * (categories > 0).unsqueeze(-1)
        return torch.cat([inputs["numeric"].to(embedded.dtype), embedded.flatten(1)], dim=1)

    def get_extra_state(self) -> Tensor:
        """The learned state, in one tensor of a size that does not depend on the data."""
        # Not in buffers, which a lower precision would change. Numbers keep all their bits.
        numbers = np.concatenate([self._mean, self._deviation]).view(np.int64)
        return torch.from_numpy(np.concatenate([[self.revision > 0], numbers, self._categories.ravel()]))

    def set_extra_state(self, state: Tensor) -> None:
        """Restore the learned state.

        Args:
            state: What `get_extra_state` returned.
        """
        values = state.cpu().numpy().copy()
        count = len(self.numeric)
        numbers = values[1 : 1 + 2 * count].view(np.float64)
        self._mean, self._deviation = numbers[:count], numbers[count:]
        self._categories = values[1 + 2 * count :].reshape(self._categories.shape)
        self.revision = self.revision + 1 if values[0] else 0

    def extra_repr(self) -> str:
        """The number of columns of each kind."""
        return f"numeric={len(self.numeric)}, categorical={len(self.categorical)}"


class _Moments:
    """Mean and deviation of columns in several parts, missing values left out."""

    def __init__(self, names: Sequence[str]) -> None:
        self.names = names
        self.count = np.zeros(len(names))
        self.mean = np.zeros(len(names))
        self.squares = np.zeros(len(names))

    def add(self, table: pa.Table) -> None:
        for i, name in enumerate(self.names):
            values = as_numbers(table[name], name)
            values = values[~np.isnan(values)]
            if not np.isfinite(values).all():
                raise UserError(f"column '{name}'", "must contain finite numbers", "an infinite one")
            if len(values):
                self._add(i, values)

    def _add(self, i: int, values: NDArray[np.float64]) -> None:
        # Chan's update: sums of squares would lose the digits of columns far from 0.
        mean, count = values.mean(), self.count[i] + len(values)
        shift = mean - self.mean[i]
        self.squares[i] += ((values - mean) ** 2).sum() + shift**2 * self.count[i] * len(values) / count
        self.mean[i] += shift * len(values) / count
        self.count[i] = count

    def mean_and_deviation(self) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        for name, count in zip(self.names, self.count, strict=True):
            if not count:
                raise UserError(
                    f"column '{name}'", "requires a number in training", "none", "Leave the column out"
                )
        deviation = np.sqrt(self.squares / self.count)
        # A constant column carries no information, whatever it is divided by.
        constant = deviation <= 1e-12 * np.abs(self.mean)
        return self.mean, np.where(constant, 1.0, deviation)


def _digest(text: str) -> int:
    """64 bits of a category's string, never 0, which means "no category"."""
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "little", signed=True) or 1


def _check(names: Sequence[str]) -> None:
    if not names:
        raise UserError(
            "TableColumns", "must have at least one column", "none", "Name numeric or categorical ones"
        )
    for name in names:
        if list(names).count(name) > 1:
            raise UserError("TableColumns", "column names must be unique", f"'{name}' twice")
