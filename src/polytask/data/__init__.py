"""Loaders and data sets."""

from polytask.data._replay import ReplayableLoader
from polytask.data._table_columns import TableColumns
from polytask.data._table_dataset import TableDataset
from polytask.data._table_inputs import TableInputs
from polytask.data._table_stream import TableStream
from polytask.data._table_targets import TableTargets

__all__ = [
    "ReplayableLoader",
    "TableColumns",
    "TableDataset",
    "TableInputs",
    "TableStream",
    "TableTargets",
]
