"""A loader whose order can be repeated, so that a run resumes in the middle of an epoch."""

import warnings
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import torch
from torch.utils.data import DataLoader, IterableDataset

from polytask._errors import UserError
from polytask._lightning._loaders import has_workers, keep_iterator, kept_iterator, skip_batch
from polytask.data._random_state import drawn, host_state, set_host_state

State = dict[str, Any]


class Resumable(ABC):
    """A loader with a position, in batches, from which a resumed run continues."""

    @abstractmethod
    def __iter__(self) -> Iterator[Any]:
        """The batches; after `load_state_dict`, the rest of them."""

    @abstractmethod
    def state_dict(self) -> State:
        """Its position, as plain data and tensors; ``batches`` is 0 between epochs."""

    @abstractmethod
    def load_state_dict(self, state: State) -> None:
        """Load a state; the next epoch continues from its position."""

    @staticmethod
    def owns(state: State) -> bool:
        """Whether a state in a checkpoint is of a loader of this package."""
        return {"batches", "length"} <= state.keys()


class ReplayableLoader(Resumable):
    r"""A loader that continues in the middle of an epoch with the remaining batches.

    It yields the batches of ``loader``, with the same random numbers. At the start of an epoch it stores the
    random states of Python, NumPy and torch and of the loader's own generators. After `load_state_dict` the
    next epoch is a replay: those states are set, the order is computed again, the used batches are skipped,
    and the current random states are restored. The epoch starts, and random numbers are used, with the first
    ``next``, not with ``iter``.

    The batches of a map-style data set without workers are skipped in the sampler and not loaded. All others
    are loaded and discarded, because a worker's random state changes with every sample that it loads.

    Lightning saves and restores the position; `polytask.callbacks.ExactResume` does the rest. With several
    processes Lightning puts a distributed sampler into bare `DataLoader`\ s only: wrap a loader that has one
    already.

    Not replayed exactly are:

    - random numbers of persistent workers after their first epoch; a warning says so. Their order is exact;
    - an iterable data set without workers that uses the same global random state as the training, which is
      detected and warned of, or a sampler that uses it at every index instead of once;
    - a data set with its own random state in this process.

    Args:
        loader: A `torch.utils.data.DataLoader` or any other iterable of batches without a state of its own.

    Raises:
        UserError: If the loader has a ``state_dict`` already, or, at a resume, if the number of batches or of
            workers differs from the checkpoint's.

    Example:
        >>> loader = ReplayableLoader(DataLoader(range(6), batch_size=2, shuffle=True))
        >>> batches = iter(loader)
        >>> _ = next(batches)
        >>> state = loader.state_dict()
        >>> rest = [batch.tolist() for batch in batches]
        >>> again = ReplayableLoader(DataLoader(range(6), batch_size=2, shuffle=True))
        >>> again.load_state_dict(state)
        >>> [batch.tolist() for batch in again] == rest
        True
    """

    def __init__(self, loader: Iterable[Any]) -> None:
        if hasattr(loader, "state_dict"):
            raise UserError(
                "loader",
                "must not have a state_dict",
                type(loader).__name__,
                "Pass the loader itself: it can be resumed",
            )
        self.loader: Any = loader
        self._start: State | None = None
        self._batches = 0
        self._resume = False

    def __len__(self) -> int:
        return len(self.loader)

    def __iter__(self) -> Iterator[Any]:
        iterator = self._replay() if self._resume else self._begin()
        for batch in iterator:
            self._batches += 1
            yield batch
        self._batches = 0

    def state_dict(self) -> State:
        """The start of the epoch and its number of batches so far, as plain data and tensors.

        ``batches`` is 0 between epochs. A loop that fetches ahead of its steps must subtract unused batches.
        """
        return {
            "batches": 0 if self._batches == length_of(self.loader) else self._batches,
            "start": self._start,
            "generators": [generator.get_state() for generator in self._generators()],
            "length": length_of(self.loader),
            "workers": self._workers(),
        }

    def load_state_dict(self, state: State) -> None:
        """Load a state; the next epoch continues from its position."""
        check_same("length", state["length"], length_of(self.loader), "batches")
        check_same("workers", state["workers"], self._workers(), "workers")
        self._start, self._batches = state["start"], state["batches"]
        self._resume = self._start is not None
        for generator, generator_state in zip(self._generators(), state["generators"], strict=True):
            generator.set_state(generator_state)

    def _begin(self) -> Iterator[Any]:
        self._batches = 0
        self._start = {
            "random": host_state(),
            "generators": [generator.get_state() for generator in self._generators()],
            "reused": has_workers(self.loader),
        }
        iterator: Iterator[Any] = iter(self.loader)
        return iterator

    def _replay(self) -> Iterator[Any]:
        """The rest of the epoch of the loaded state; a new epoch if it was saved between two."""
        self._resume = False
        assert self._start is not None
        found = host_state()
        if self._persistent() and (self._start["reused"] or not self._batches):
            self._prime()
        if not self._batches:
            set_host_state(found)
            return self._begin()
        set_host_state(self._start["random"])
        for generator, state in zip(self._generators(), self._start["generators"], strict=True):
            generator.set_state(state)
        iterator: Iterator[Any] = iter(self.loader)
        self._skip(iterator, found)
        set_host_state(found)
        return iterator

    def _prime(self) -> None:
        """Start the persistent workers, as the stopped run had done in an earlier epoch.

        Their start uses a random seed and later epochs do not: restore the generators.
        """
        states = [generator.get_state() for generator in self._generators()]
        iter(self.loader)
        for generator, state in zip(self._generators(), states, strict=True):
            generator.set_state(state)
        warnings.warn(
            "Persistent workers were started again: the order of the data is replayed exactly, random "
            "numbers inside the workers are not. Use persistent_workers=False if they must be.",
            stacklevel=2,
        )

    def _skip(self, iterator: Any, found: State) -> None:
        if self._indexed() and not self._workers():
            for _ in range(self._batches):
                skip_batch(iterator)
            return
        before = host_state()
        for _ in range(self._batches):
            next(iterator)
        after = host_state()
        if not self._workers() and drawn(before, after) & drawn(after, found):
            warnings.warn(
                "The data set and the training use the same random state: the rest of this epoch may differ "
                "from that of the run that was stopped. Give the data set its own generator, seeded when its "
                "iteration begins.",
                stacklevel=2,
            )

    def _indexed(self) -> bool:
        return isinstance(self.loader, DataLoader) and not isinstance(self.loader.dataset, IterableDataset)

    def _workers(self) -> int:
        return self.loader.num_workers if isinstance(self.loader, DataLoader) else 0

    def _persistent(self) -> bool:
        return isinstance(self.loader, DataLoader) and self.loader.persistent_workers

    def _generators(self) -> list[torch.Generator]:
        batch_sampler = getattr(self.loader, "batch_sampler", None)
        holders = (
            self.loader,
            getattr(self.loader, "sampler", None),
            batch_sampler,
            getattr(batch_sampler, "sampler", None),
        )
        found = [getattr(holder, "generator", None) for holder in holders]
        return list({id(item): item for item in found if isinstance(item, torch.Generator)}.values())

    # Attributes of a loader that Lightning reads or sets.

    @property
    def dataset(self) -> Any:
        """The loader's data set."""
        return self.loader.dataset

    @property
    def batch_size(self) -> int | None:
        """Samples per batch, or None if the loader does not make batches."""
        size: int | None = self.loader.batch_size
        return size

    @property
    def sampler(self) -> Any:
        """The loader's sampler, whose ``set_epoch`` is called before each epoch."""
        return self.loader.sampler

    @property
    def batch_sampler(self) -> Any:
        """The loader's batch sampler."""
        return self.loader.batch_sampler

    @property
    def worker_init_fn(self) -> Callable[[int], None] | None:
        """The function that each worker calls first."""
        function: Callable[[int], None] | None = self.loader.worker_init_fn
        return function

    @worker_init_fn.setter
    def worker_init_fn(self, function: Callable[[int], None] | None) -> None:
        self.loader.worker_init_fn = function

    @property
    def _iterator(self) -> Any:
        """The iterator that holds persistent workers; Lightning shuts them down through it."""
        return kept_iterator(self.loader)

    @_iterator.setter
    def _iterator(self, iterator: Any) -> None:
        keep_iterator(self.loader, iterator)


def length_of(loader: Any) -> int | None:
    """The number of batches, or None if the loader does not know it.

    Example:
        >>> length_of([1, 2]), length_of(iter([1, 2]))
        (2, None)
    """
    try:
        return len(loader)
    except (TypeError, NotImplementedError):
        return None


def check_same(key: str, saved: int | None, found: int | None, noun: str) -> None:
    """Raise if a loader differs from the loader of a state.

    Args:
        key: The compared quantity, for the message.
        saved: Its number in the state.
        found: Its number now.
        noun: The counted things.

    Raises:
        UserError: If the numbers differ.
    """
    if saved != found:
        raise UserError(
            f"train loader ({key})",
            f"must be resumed with the same number of {noun}, {saved}",
            found,
            "Resume with the same data, batch size and workers, or start a new run from the weights",
        )
