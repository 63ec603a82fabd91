"""Which rows of which data the batches of a prediction are."""

from collections.abc import Iterator, Sequence
from typing import Any

from torch.utils.data import DataLoader, IterableDataset

from polytask.batch import Batch
from polytask.data import TaskLoader
from polytask.data._positions import positions
from polytask.system._stage_loaders import each_loader, loader_names


class PredictedRows:
    """Follows the loaders of a prediction, batch by batch.

    Args:
        loader: The loaders of the stage: one, or a mapping or list of several.
        tasks: All tasks.

    Example:
        >>> import torch
        >>> followed = PredictedRows({"new": DataLoader(range(2)), "old": DataLoader(range(2))}, ["digit"])
        >>> followed.next(Batch(torch.zeros(1), None, 1), 1), followed.indexed(1)
        (('old', None), True)
    """

    def __init__(self, loader: Any, tasks: Sequence[str]) -> None:
        self._loaders = each_loader(loader)
        self._names = loader_names(loader, "predict", tasks)
        self._positions: dict[tuple[int, str | None], Iterator[Sequence[int]] | None] = {}

    def next(self, batch: Batch, index: int) -> tuple[str | None, Sequence[int] | None]:
        """The loader's name, or the task's with a `TaskLoader`, and the rows of the next batch of it.

        Args:
            batch: The batch.
            index: The number of its loader.

        Returns:
            None for the name of the only loader, and for rows that the loader does not tell.
        """
        loader = self._loaders[index]
        name = self._names[index] if self._names else None
        task = None
        if isinstance(loader, TaskLoader) and batch.rows is not None:
            (task,) = batch.rows
            loader = loader.loaders[task]
            name = task if name is None else f"{name}/{task}"
        if task is None and _is_indexed(loader):
            # Lightning says what it has fetched.
            return name, None
        if (index, task) not in self._positions:
            self._positions[index, task] = positions(loader)
        followed = self._positions[index, task]
        rows = None if followed is None else next(followed, None)
        return name, rows if rows is not None and len(rows) == batch.size else None

    def indexed(self, index: int) -> bool:
        """Whether Lightning knows the rows of a loader's batches.

        Args:
            index: The number of the loader.
        """
        return _is_indexed(self._loaders[index])


def _is_indexed(loader: Any) -> bool:
    return isinstance(loader, DataLoader) and not isinstance(loader.dataset, IterableDataset)
