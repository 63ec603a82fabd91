"""Numeric and categorical columns: scaled and numbered as in training, and stored in the model."""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from polytask._checks import check_integer
from polytask._errors import UserError, hint
from polytask._tasks import TASK_TYPES
from polytask.data._table_inputs import TableInputs, Unseen, digest
from polytask.data._table_values import as_numbers, distinct
from polytask.data._text_forms import text_form

_BLOCK = 8192
_MOST = 100


class TableColumns(TableInputs, nn.Module):
    r"""Numbers scaled to mean 0 and deviation 1, and categories embedded; the first layer of a model.

    A data set with ``train=True`` makes it learn means, deviations and categories. They are in its
    ``state_dict``: as a part of the model it stores them in every checkpoint, so that new data is encoded as
    the training data was. So is which tasks have classes and which have values, see `TableTargets`.

    `encode`, called by the data set, returns :math:`(x - \mu) / \sigma` and 0 for a missing number, and
    numbers the categories from 1, the most frequent first. 0 is a missing category, one that training did
    not have, or one beyond the ``max_categories`` most frequent ones. `forward`, called by the model,
    concatenates the numbers and the embeddings of the categories; 0 is embedded as zeros.

    A category is one value, whatever the file's format makes of it: ``3``, ``3.0`` and ``"3"`` are one, and
    so are ``true`` and ``True``, a date and its midnight, bytes and their string. ``007`` and ``3.10`` are
    not ``7`` and ``3.1``. A data set warns of categories that training did not have, with their number; that
    no category of a column is known is an error.

    Args:
        numeric: Columns of numbers or booleans.
        categorical: Columns of categories: strings, whole numbers, booleans, dates and times.
        max_categories: The largest number of categories of a column that are distinguished; or a dict of it
            by column, with 100 for the columns that are not in it.
        embedding_dim: Features of a category.

    Shape:
        - Input of `forward`: what `encode` returns: ``(N, numeric)``, or, with categorical columns, a dict
          with ``numeric`` ``(N, numeric)`` and ``categories`` ``(N, categorical)``, int64.
        - Output: ``(N, output_dim)``, ``output_dim = numeric + categorical * embedding_dim``.

    Raises:
        UserError: If no column is named or one twice, a size is below 1 or is of a column that is not
            categorical, or nothing was learned yet.

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
        max_categories: int | Mapping[str, int] = _MOST,
        embedding_dim: int = 8,
    ) -> None:
        super().__init__()
        self.numeric, self.categorical = tuple(numeric), tuple(categorical)
        self.names = (*self.numeric, *self.categorical)
        _check(self.names)
        self._most = _most_categories(max_categories, self.categorical)
        self.max_categories = max_categories if isinstance(max_categories, Mapping) else int(max_categories)
        self.embedding_dim = check_integer(embedding_dim, "TableColumns.embedding_dim", 1)
        self.output_dim = len(self.numeric) + len(self.categorical) * self.embedding_dim
        # Row 0 of each column is that of no category.
        self._first = [sum(self._most[:i]) + i for i in range(len(self._most))]
        rows = sum(self._most) + len(self._most)
        self.embedding = nn.Embedding(rows, self.embedding_dim) if self.categorical else None
        self.revision = 0
        self._mean = np.zeros(len(self.numeric))
        self._deviation = np.zeros(len(self.numeric))
        self._categories = [np.zeros(most, np.int64) for most in self._most]

    # ---- for the data set ---------------------------------------------------------------------

    def learn(self, tables: Iterable[pa.Table]) -> None:
        """Learn means, deviations and categories from the training table.

        Args:
            tables: Its parts, one after the other.

        Raises:
            UserError: If a column of numbers has an infinite one or none, or holds no numbers; or if a column
                of categories has none.
        """
        moments = _Moments(self.numeric)
        counts: list[Counter[str]] = [Counter() for _ in self.categorical]
        for table in tables:
            moments.add(table)
            for name, count in zip(self.categorical, counts, strict=True):
                _count(count, table[name], name)
        self._mean, self._deviation = moments.mean_and_deviation()
        for name, count in zip(self.categorical, counts, strict=True):
            if not count:
                rule = "requires a category in training"
                raise UserError(f"column '{name}'", rule, "none", "Leave the column out")
        self._categories = [
            _most_frequent(count, most) for count, most in zip(counts, self._most, strict=True)
        ]
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
        texts, rows = distinct(column, self.categorical[index])
        numbers = self._numbers_of(texts, index)
        numbered: NDArray[np.int64] = np.array([*numbers, 0], np.int64)[rows]
        return numbered

    def _numbers_of(self, texts: Sequence[str], index: int) -> list[int]:
        known = {int(code): i for i, code in enumerate(self._categories[index], 1) if code}
        # As written first: the state of a former version knows strings, not their forms.
        return [known.get(digest(text)) or known.get(digest(text_form(text)), 0) for text in texts]

    def unseen(self, table: pa.Table, inputs: Any) -> dict[str, Unseen]:
        """By categorical column, how many of its values are not among the known categories.

        Args:
            table: What `encode` was given.
            inputs: What it returned.
        """
        found = {}
        for i, name in enumerate(self.categorical):
            texts, rows = distinct(table[name], name)
            present = int((rows < len(texts)).sum())
            known = int((inputs["categories"][:, i] > 0).sum())
            numbers = self._numbers_of(texts, i)
            example = next((text for text, number in zip(texts, numbers, strict=True) if not number), None)
            found[name] = Unseen(present - known, present, int((self._categories[i] != 0).sum()), example)
        return found

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
        offsets = torch.tensor(self._first, device=categories.device)
        embedded = self.embedding(categories + offsets) * (categories > 0).unsqueeze(-1)
        return torch.cat([inputs["numeric"].to(embedded.dtype), embedded.flatten(1)], dim=1)

    def get_extra_state(self) -> Tensor:
        """The learned state, in one tensor of integers."""
        # Not in buffers, which a lower precision would change. Numbers keep all their bits.
        numbers = np.concatenate([self._mean, self._deviation]).view(np.int64)
        types = np.array(list(self._target_types.items()), np.int64).ravel()
        return torch.from_numpy(np.concatenate([[self.revision > 0], numbers, *self._categories, types]))

    def set_extra_state(self, state: Tensor) -> None:
        """Restore the learned state.

        Args:
            state: What `get_extra_state` returned, here or in a former version, without types of targets.

        Raises:
            UserError: If it is that of other columns.
        """
        if not self.fits_extra_state(state):
            found = f"a state of {len(state)} numbers instead of {self._size()}"
            raise UserError("TableColumns", "must have the columns of the saved ones", found)
        values = state.cpu().numpy().copy()
        count, end = len(self.numeric), self._size()
        numbers = values[1 : 1 + 2 * count].view(np.float64)
        self._mean, self._deviation = numbers[:count], numbers[count:]
        categories = values[1 + 2 * count : end]
        self._categories = np.split(categories, np.cumsum(self._most)[:-1]) if self._most else []
        if len(values) > end:
            self._target_types = dict(values[end:].reshape(-1, 2).tolist())
        self.revision = self.revision + 1 if values[0] else 0

    def fits_extra_state(self, state: Tensor) -> bool:
        """Whether a saved state is one of the same columns; the number of types of targets may differ.

        Args:
            state: What `get_extra_state` returned.
        """
        types = state[self._size() :].tolist()
        if state.ndim != 1 or len(state) < self._size() or len(types) % 2:
            return False
        return all(types[::2]) and all(1 <= kind <= len(TASK_TYPES) for kind in types[1::2])

    def _size(self) -> int:
        return 1 + 2 * len(self.numeric) + sum(self._most)

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


def _count(counts: Counter[str], column: Any, name: str) -> None:
    texts, rows = distinct(column, name)
    for text, number in zip(texts, np.bincount(rows, minlength=len(texts)).tolist(), strict=False):
        counts[text_form(text)] += number


def _most_frequent(counts: Counter[str], most: int) -> NDArray[np.int64]:
    # Ties are broken by the string, so that the order of the files makes no difference.
    frequent = sorted(counts, key=lambda text: (-counts[text], text))[:most]
    codes = np.zeros(most, np.int64)
    codes[: len(frequent)] = [digest(text) for text in frequent]
    return codes


def _most_categories(given: int | Mapping[str, int], categorical: Sequence[str]) -> list[int]:
    where = "TableColumns.max_categories"
    if not isinstance(given, Mapping):
        return [check_integer(given, where, 1)] * len(categorical)
    for name in given:
        if name not in categorical:
            fix = hint(str(name), categorical, "Categorical columns")
            raise UserError(where, f"no categorical column is called {name!r}", None, fix)
    return [check_integer(given.get(name, _MOST), f"{where}.{name}", 1) for name in categorical]


def _check(names: Sequence[str]) -> None:
    if not names:
        raise UserError(
            "TableColumns", "must have at least one column", "none", "Name numeric or categorical ones"
        )
    for name in names:
        if list(names).count(name) > 1:
            raise UserError("TableColumns", "column names must be unique", f"'{name}' twice")
