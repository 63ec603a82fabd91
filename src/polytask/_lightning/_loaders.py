"""The private names of `torch.utils.data.DataLoader` and its iterators."""

import copy
import traceback
from typing import Any

from torch._utils import ExceptionWrapper
from torch.utils.data import (
    BatchSampler,
    DataLoader,
    DistributedSampler,
    IterableDataset,
    RandomSampler,
    SequentialSampler,
)
from torch.utils.data.dataloader import _BaseDataLoaderIter


def failed_dataset(error: BaseException) -> tuple[Any] | None:
    """The data set of the loader whose iterator raised, as a tuple of one; None if no loader did.

    The traceback is the only link: a loader does not say in its errors which loader it is.

    Args:
        error: The error, with its traceback.

    Example:
        >>> from torch.utils.data import DataLoader
        >>> loader = DataLoader([[1], [1, 2]], batch_size=2)
        >>> try:
        ...     next(iter(loader))
        ... except RuntimeError as error:
        ...     failed_dataset(error)
        ([[1], [1, 2]],)
    """
    for frame, _ in traceback.walk_tb(error.__traceback__):
        if frame.f_code is _BaseDataLoaderIter.__next__.__code__:
            return (frame.f_locals["self"]._dataset,)
    return None


def raised_in_worker(error: BaseException) -> bool:
    """Whether an error is the copy of one in a loader's worker; its message is the worker's traceback.

    Args:
        error: The error, with its traceback.

    Example:
        >>> raised_in_worker(ValueError("Original Traceback"))
        False
    """
    frames = [frame.f_code for frame, _ in traceback.walk_tb(error.__traceback__)]
    return frames[-1:] == [ExceptionWrapper.reraise.__code__]


def skip_batch(iterator: Any) -> None:
    """Advance the sampler by one batch without loading it.

    Args:
        iterator: An iterator of a `DataLoader` without workers, over a map-style data set.

    Example:
        >>> from torch.utils.data import DataLoader
        >>> iterator = iter(DataLoader([1, 2, 3]))
        >>> skip_batch(iterator)
        >>> next(iterator)
        tensor([2])
    """
    iterator._next_index()


def kept_iterator(loader: Any) -> Any:
    """The iterator that a `DataLoader` keeps for its persistent workers; None if it has not started them.

    Args:
        loader: A `DataLoader`.

    Raises:
        AttributeError: If it is another iterable, by which Lightning knows that there are no workers to end.

    Example:
        >>> from torch.utils.data import DataLoader
        >>> kept_iterator(DataLoader([1])) is None
        True
    """
    return loader._iterator


def has_workers(loader: Any) -> bool:
    """Whether a loader has started persistent workers.

    Args:
        loader: A `DataLoader`, or any other iterable.

    Example:
        >>> has_workers([1])
        False
    """
    return getattr(loader, "_iterator", None) is not None


def keep_iterator(loader: Any, iterator: Any) -> None:
    """Set the iterator that a `DataLoader` keeps for its persistent workers.

    Args:
        loader: A `DataLoader`.
        iterator: The iterator, or None, which ends the workers.
    """
    loader._iterator = iterator


def reordered(loader: DataLoader[Any]) -> DataLoader[Any]:
    """A copy of a loader whose rows are in the data set's order, without a remainder that is left out.

    Args:
        loader: A loader. One whose sampler is the user's own, or whose data set has an order of its own, is
            returned as it is.

    Example:
        >>> [batch.tolist() for batch in reordered(DataLoader([1, 2, 3], batch_size=2, shuffle=True))]
        [[1, 2], [3]]
    """
    dataset, sampler, batches = loader.dataset, loader.sampler, loader.batch_sampler
    changed: dict[str, Any] = {}
    if isinstance(dataset, IterableDataset):
        if not hasattr(dataset, "ordered"):
            return loader
        # Several workers would take turns.
        changed = {"dataset": dataset.ordered(), "num_workers": 0, "prefetch_factor": None}
        changed |= {"persistent_workers": False, "timeout": 0, "multiprocessing_context": None}
    elif batches is None or type(batches) is BatchSampler:
        if isinstance(sampler, DistributedSampler):
            ordered_sampler = copy.copy(sampler)
            ordered_sampler.shuffle = False
            sampler = ordered_sampler
        elif isinstance(sampler, RandomSampler):
            sampler = SequentialSampler(dataset)  # type: ignore[arg-type]
        elif not isinstance(sampler, SequentialSampler):
            return loader
        changed = {"sampler": sampler}
        if batches is not None:
            changed |= {"batch_sampler": BatchSampler(sampler, batches.batch_size, False), "drop_last": False}
    else:
        return loader
    ordered = copy.copy(loader)
    # A loader refuses to have them set.
    vars(ordered).update(changed, _iterator=None)
    return ordered
