"""What a data set says of values that were not in the training data."""

import warnings
from typing import Any

import pyarrow as pa
from torch.utils.data import get_worker_info

from polytask._errors import UserError
from polytask.data._seeded import ranks
from polytask.data._table_inputs import TableInputs, Unseen


class UnseenValues:
    """Counts values that mean nothing to the model, table by table, and reports them once.

    Args:
        columns: What encodes the tables.

    Example:
        >>> from polytask.data import TableColumns
        >>> columns = TableColumns(categorical=["city"])
        >>> columns.learn([pa.table({"city": ["Bern", "Rome"]})])
        >>> counts, table = UnseenValues(columns), pa.table({"city": ["Oslo"]})
        >>> counts.add(table, columns.encode(table))
        >>> counts.report(whole=True)
        Traceback (most recent call last):
        polytask._errors.UserError: column 'city': must hold categories of the training data, got none of ...
    """

    def __init__(self, columns: TableInputs) -> None:
        self._columns = columns
        self._counts: dict[str, Unseen] = {}

    def add(self, table: pa.Table, inputs: Any) -> None:
        """Count the values of a table.

        Args:
            table: The columns.
            inputs: What they were encoded to.
        """
        for name, count in self._columns.unseen(table, inputs).items():
            self._counts[name] = self._counts[name] + count if name in self._counts else count

    def report(self, whole: bool) -> None:
        """Warn of values that are not known.

        Args:
            whole: Whether all rows were counted.

        Raises:
            UserError: If all were, and no value of a column is known.
        """
        for name, count in self._counts.items():
            if whole and count.unknown == count.values > 0:
                raise UserError(
                    f"column '{name}'",
                    "must hold categories of the training data",
                    f"none of {count.known} in {count.values} values, such as {count.example!r}",
                    "Write its values as in the training data, or leave cells of new categories empty",
                )
        for name, count in self._counts.items():
            if count.unknown and _speaks():
                text = (
                    f"column '{name}': {count.unknown} of {count.values} values, such as {count.example!r}, "
                    f"are not among the {count.known} categories known from training. They are encoded as "
                    "missing."
                )
                warnings.warn(text, UserWarning, stacklevel=2)


def _speaks() -> bool:
    """Whether this is the one of several processes that warns."""
    worker = get_worker_info()
    return ranks()[0] == 0 and (worker is None or worker.id == 0)
