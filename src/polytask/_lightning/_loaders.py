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


def reordered(loader: DataLoader[Any], whole: bool) -> DataLoader[Any]:
    """A copy of a loader whose rows are in the data set's order.

    Args:
        loader: A loader. One whose sampler is the user's own, or whose data set is an iterable, keeps its
            order.
        whole: Whether a last batch with fewer rows is kept in any case.

    Example:
        >>> [batch.tolist() for batch in reordered(DataLoader([1, 2, 3], batch_size=2, shuffle=True), True)]
        [[1, 2], [3]]
    """
    ordered = copy.copy(loader)
    # Lightning would make the loader again from arguments that it has seen, whatever was changed since.
    for name in [name for name in vars(ordered) if name.startswith("__pl_saved")]:
        del vars(ordered)[name]
    # A loader refuses to have them set.
    vars(ordered).update(_in_order(loader, whole), _iterator=None)
    return ordered


def _in_order(loader: DataLoader[Any], whole: bool) -> dict[str, Any]:
    """The attributes in which it differs from one in the data set's order."""
    dataset, sampler, batches = loader.dataset, loader.sampler, loader.batch_sampler
    if isinstance(dataset, IterableDataset):
        if not hasattr(dataset, "ordered"):
            return {}
        # Several workers would take turns.
        workers = {"num_workers": 0, "prefetch_factor": None, "persistent_workers": False, "timeout": 0}
        return {"dataset": dataset.ordered(whole), "multiprocessing_context": None, **workers}
    if batches is not None and type(batches) is not BatchSampler:
        return {}
    if isinstance(sampler, DistributedSampler):
        ordered = copy.copy(sampler)
        ordered.shuffle = False
        sampler = ordered
    elif isinstance(sampler, RandomSampler):
        sampler = SequentialSampler(dataset)  # type: ignore[arg-type]
    elif not isinstance(sampler, SequentialSampler):
        return {}
    if batches is None:
        return {"sampler": sampler}
    drops = batches.drop_last and not whole
    ordered_batches = BatchSampler(sampler, batches.batch_size, drops)
    return {"sampler": sampler, "batch_sampler": ordered_batches, "drop_last": drops}
