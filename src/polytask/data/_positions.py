"""Loaders in the order of their data, and which rows their batches are."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from torch.utils.data import BatchSampler, DataLoader, DistributedSampler, IterableDataset, SequentialSampler

from polytask._lightning._loaders import reordered


def in_order(loader: Any, whole: bool = True) -> Any:
    """A loader of the same rows in the order of the data.

    Args:
        loader: A loader, a mapping or a list of loaders; it is not changed. One with a sampler of the user's
            own keeps its order.
        whole: Whether a last batch with fewer rows is kept in any case.

    Example:
        >>> ordered = in_order(DataLoader(range(5), batch_size=2, shuffle=True, drop_last=True))
        >>> [batch.tolist() for batch in ordered]
        [[0, 1], [2, 3], [4]]
    """
    if isinstance(loader, Mapping):
        return {name: in_order(one, whole) for name, one in loader.items()}
    if isinstance(loader, (list, tuple)):
        return [in_order(one, whole) for one in loader]
    if hasattr(loader, "ordered"):
        return loader.ordered(whole)
    return reordered(loader, whole) if isinstance(loader, DataLoader) else loader


def positions(loader: Any) -> Iterator[Sequence[int]] | None:
    """Which rows of the data each batch of a pass is; None if the loader cannot tell.

    Args:
        loader: A loader that `in_order` returned.

    Example:
        >>> list(positions(in_order(DataLoader(range(3), batch_size=2, shuffle=True))))
        [[0, 1], [2]]
    """
    if hasattr(loader, "positions"):
        found: Iterator[Sequence[int]] = loader.positions()
        return found
    if not isinstance(loader, DataLoader):
        return None
    if isinstance(loader.dataset, IterableDataset):
        own = getattr(loader.dataset, "positions", None)
        return None if own is None or loader.batch_size is not None else own()
    batches = loader.batch_sampler
    if not isinstance(loader.sampler, (SequentialSampler, DistributedSampler)):
        return None
    if batches is None:
        return ([row] for row in loader.sampler)
    return iter(batches) if type(batches) is BatchSampler else None
