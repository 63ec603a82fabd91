"""Data sets and loaders: arrays, tables, streams of files, and several tasks' own loaders.

Begin with `create_multitask_dataloader` for arrays, `TableDataset` for CSV and Parquet files, and
`TaskLoader` if each task has a data set of its own. Loaders yield plain pairs of inputs and targets by task,
and can resume in the middle of an epoch (``_replay.py``, ``_seeded.py``). Which labels are missing is
decided in `polytask.batch`.

This room knows no model, no loss and no trainer. Names are imported when they are first used: a project
without tables does not import pyarrow.
"""

from typing import TYPE_CHECKING

from polytask._lazy import lazy

if TYPE_CHECKING:
    from polytask.data._array_dataset import ArrayDataset
    from polytask.data._array_loader import ArrayLoader, create_multitask_dataloader
    from polytask.data._kornia import KorniaAugmentation
    from polytask.data._replay import ReplayableLoader
    from polytask.data._table_columns import TableColumns
    from polytask.data._table_dataset import TableDataset
    from polytask.data._table_inputs import TableInputs
    from polytask.data._table_stream import TableStream
    from polytask.data._table_targets import TableTargets
    from polytask.data._task_loader import TaskLoader
    from polytask.data._task_samplers import (
        Annealed,
        FixedProbabilities,
        Proportional,
        RoundRobin,
        TaskSampler,
        Temperature,
        Uniform,
    )

_WHERE = {
    "Annealed": "_task_samplers",
    "ArrayDataset": "_array_dataset",
    "ArrayLoader": "_array_loader",
    "FixedProbabilities": "_task_samplers",
    "KorniaAugmentation": "_kornia",
    "Proportional": "_task_samplers",
    "ReplayableLoader": "_replay",
    "RoundRobin": "_task_samplers",
    "TableColumns": "_table_columns",
    "TableDataset": "_table_dataset",
    "TableInputs": "_table_inputs",
    "TableStream": "_table_stream",
    "TableTargets": "_table_targets",
    "TaskLoader": "_task_loader",
    "TaskSampler": "_task_samplers",
    "Temperature": "_task_samplers",
    "Uniform": "_task_samplers",
    "create_multitask_dataloader": "_array_loader",
}

__all__ = [
    "Annealed",
    "ArrayDataset",
    "ArrayLoader",
    "FixedProbabilities",
    "KorniaAugmentation",
    "Proportional",
    "ReplayableLoader",
    "RoundRobin",
    "TableColumns",
    "TableDataset",
    "TableInputs",
    "TableStream",
    "TableTargets",
    "TaskLoader",
    "TaskSampler",
    "Temperature",
    "Uniform",
    "create_multitask_dataloader",
]

__getattr__ = lazy(__name__, _WHERE)
