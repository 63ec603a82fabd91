"""A loader of whole batches from arrays."""

import copy
import itertools
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import torch
from torch import Tensor

from polytask._checks import check_integer
from polytask._errors import UserError
from polytask.batch import IGNORE_INDEX
from polytask.data._array_dataset import ArrayDataset
from polytask.data._normalize import Normalization, normalizers
from polytask.data._replay import State, check_same
from polytask.data._seeded import SeededLoader, ranks

Augment = Callable[[Any, dict[str, Tensor]], tuple[Any, dict[str, Tensor]]]
# Batches made ahead while a device computes.
_AHEAD = 2


class ArrayLoader(SeededLoader):
    """Batches of an `ArrayDataset`, each array indexed once for a whole batch.

    A batch is (inputs, targets by task). The order of a pass follows from the seed and the pass' number, so
    that ``state_dict`` and ``load_state_dict`` resume it at any batch.

    With several processes the loader itself splits the rows among them, and Lightning adds no sampler.
    Without shuffling each row is seen by one process, once. With shuffling all processes have the same
    number of rows: the remainder, which is fewer rows than there are processes, is left out, other rows in
    each pass.

    With a CUDA device batches are made in a thread, two ahead, in pinned memory.

    Args:
        dataset: The rows.
        batch_size: Rows of a batch on each process.
        shuffle: Whether each pass has another random order, as in training. Classes must then be 0, 1, …
            with a row each, unless the data set was given them.
        drop_last: Whether a last batch with fewer rows is left out.
        seed: Seed of the order, 0 or more; None for torch's own seed at this moment. Required with several
            processes.
        normalize: (mean, standard deviation) of every input, single numbers or one for each channel, which
            is the first dimension of a row; or such pairs by input. Bytes are scaled to 0 to 1 first.
        augment: Called with the inputs and targets of each batch; returns both.
        prefetch: Batches made ahead in a thread; None for 2 with a CUDA device and 0 without.

    Raises:
        UserError: If a number is out of range, an input is unknown, or no batch is left.

    Example:
        >>> data = ArrayDataset(torch.arange(5.0), {"double": 2 * torch.arange(5.0)})
        >>> for inputs, targets in ArrayLoader(data, batch_size=2, shuffle=False):
        ...     print(inputs.tolist(), targets["double"].tolist())
        [0.0, 1.0] [0.0, 2.0]
        [2.0, 3.0] [4.0, 6.0]
        [4.0] [8.0]
    """

    def __init__(
        self,
        dataset: ArrayDataset,
        batch_size: int = 32,
        shuffle: bool = True,
        *,
        drop_last: bool = False,
        seed: int | None = None,
        normalize: Normalization | Mapping[str, Normalization] | None = None,
        augment: Augment | None = None,
        prefetch: int | None = None,
    ) -> None:
        super().__init__(seed)
        _check_kind(dataset)
        cuda = torch.cuda.is_available()
        self.dataset = dataset
        self.batch_size = check_integer(batch_size, "batch_size", 1)
        self.shuffle = shuffle
        self.drop_last = drop_last
        self.normalizers = normalizers(normalize, dataset)
        self.augment = augment
        self.prefetch = _AHEAD if cuda else 0
        if prefetch is not None:
            self.prefetch = check_integer(prefetch, "prefetch", 0)
        self.pin = cuda
        if shuffle:
            dataset.check_gaps()
        if not len(self) or len(dataset) < ranks()[1]:
            found = f"{len(dataset)} rows for {ranks()[1]} processes with batch_size={batch_size}"
            raise UserError("batch_size", "must leave at least one batch", found, "Reduce it")

    def __len__(self) -> int:
        rows, steps = self._share()
        return rows // self.batch_size if self.drop_last else steps

    def _share(self) -> tuple[int, int]:
        return _share(len(self.dataset), self.batch_size, self.shuffle or self.drop_last, *ranks())

    def batches(self, number: int, first: int) -> Iterator[Any]:
        """The batches of a pass, from a given one on.

        Args:
            number: The pass, from 0.
            first: The first batch, from 0.
        """
        made = ahead(self._batch, self._rows(number)[first:], self.prefetch)
        return made if self.augment is None else (self.augment(*batch) for batch in made)

    def _rows(self, number: int) -> Sequence[Tensor]:
        """The rows of each of this process' batches."""
        everything, (rank, world) = len(self.dataset), ranks()
        rows, steps = self._share()
        order = torch.arange(everything)
        if self.shuffle:
            order = torch.randperm(everything, generator=self.generator(number))
        own = order[rank::world][:rows]
        if world > 1 and not (self.shuffle or self.drop_last):
            return own.tensor_split(steps)
        size = self.batch_size
        return [own[step * size : (step + 1) * size] for step in range(len(self))]

    def _batch(self, rows: Tensor) -> Any:
        inputs, targets = self.dataset.take(rows)
        for name, normalizer in self.normalizers.items():
            if name:
                inputs[name] = normalizer(inputs[name])
            else:
                inputs = normalizer(inputs)
        return (_pinned(inputs), _pinned(targets)) if self.pin else (inputs, targets)

    def ordered(self, whole: bool) -> "ArrayLoader":
        """A loader of the same rows in order.

        Args:
            whole: Whether a last batch with fewer rows is kept in any case.
        """
        ordered = copy.copy(self)
        ordered.shuffle = False
        ordered.drop_last = self.drop_last and not whole
        return ordered

    def positions(self) -> Iterator[list[int]]:
        """The rows of each batch of this process in a pass that is not shuffled."""
        return (rows.tolist() for rows in self._rows(0))

    def state_dict(self) -> State:
        """The seed, the number of passes begun, and the batches yielded in the last one, 0 between passes."""
        return {**super().state_dict(), "rows": len(self.dataset)}

    def load_state_dict(self, state: State) -> None:
        """Restore a state; the next pass continues from there.

        Args:
            state: What `state_dict` returned.

        Raises:
            UserError: If the number of rows or batches differs from the state's.
        """
        check_same("rows", state["rows"], len(self.dataset), "rows")
        super().load_state_dict(state)

    def __repr__(self) -> str:
        return f"ArrayLoader({self.dataset!r}, batch_size={self.batch_size}, shuffle={self.shuffle})"


def create_multitask_dataloader(
    inputs: Any,
    targets: Mapping[str, Any] | None = None,
    batch_size: int = 32,
    shuffle: bool = True,
    *,
    classes: Mapping[str, int | Sequence[str]] | None = None,
    ignore_index: int = IGNORE_INDEX,
    drop_last: bool = False,
    seed: int | None = None,
    normalize: Normalization | Mapping[str, Normalization] | None = None,
    augment: Augment | None = None,
    prefetch: int | None = None,
) -> ArrayLoader:
    """A loader of arrays that indexes whole batches: an `ArrayLoader` of an `ArrayDataset`.

    Args:
        inputs: One array, or a dict of arrays; numpy arrays, tensors, or paths of ``.npy`` files.
        targets: By task an array with a row for each row of the inputs; missing labels are NaN or
            ``ignore_index``.
        batch_size: Rows of a batch on each process.
        shuffle: Whether each pass has another random order, as in training.
        classes: By task the number of classes, or their names in order; targets may then be strings.
        ignore_index: The integer that means "no label".
        drop_last: Whether a last batch with fewer rows is left out.
        seed: Seed of the order, 0 or more; None for torch's own seed at this moment.
        normalize: (mean, standard deviation) of every input, or such pairs by input; bytes are scaled to
            0 to 1 first.
        augment: Called with the inputs and targets of each batch; returns both.
        prefetch: Batches made ahead in a thread; None for 2 with a CUDA device and 0 without.

    Raises:
        UserError: If the arrays or an option are invalid; with the task or the input at fault.

    Example:
        >>> import numpy as np
        >>> images = np.zeros((10, 1, 4, 4), dtype=np.uint8)
        >>> loader = create_multitask_dataloader(
        ...     images, {"digit": np.arange(10), "odd": np.arange(10) % 2}, batch_size=4, normalize=(0.5, 0.5)
        ... )
        >>> inputs, targets = next(iter(loader))
        >>> inputs.shape, inputs.min(), targets["odd"].dtype, len(loader)
        (torch.Size([4, 1, 4, 4]), tensor(-1.), torch.int64, 3)
    """
    dataset = ArrayDataset(inputs, targets, classes=classes, ignore_index=ignore_index)
    return ArrayLoader(
        dataset,
        batch_size,
        shuffle,
        drop_last=drop_last,
        seed=seed,
        normalize=normalize,
        augment=augment,
        prefetch=prefetch,
    )


def ahead(make: Callable[[Tensor], Any], rows: Iterable[Tensor], count: int) -> Iterator[Any]:
    """The results of a function for each item, a number of them ahead in a thread.

    Args:
        make: The function.
        rows: Its arguments.
        count: The number of results made ahead; 0 for none, without a thread.

    Example:
        >>> list(ahead(torch.neg, torch.arange(3), 2))
        [tensor(0), tensor(-1), tensor(-2)]
    """
    if not count:
        yield from map(make, rows)
        return
    with ThreadPoolExecutor(1) as pool:
        coming = iter(rows)
        made: deque[Future[Any]] = deque(pool.submit(make, own) for own in itertools.islice(coming, count))
        while made:
            batch = made.popleft().result()
            made.extend(pool.submit(make, own) for own in itertools.islice(coming, 1))
            yield batch


def _share(rows: int, batch_size: int, even: bool, rank: int, world: int) -> tuple[int, int]:
    """This process' number of rows, and of batches.

    All processes have the same number of batches, as far as there are rows, so that none waits for another.
    """
    if even:
        own = rows // world
        return own, -(-own // batch_size)
    own = len(range(rank, rows, world))
    return own, min(own, -(-len(range(0, rows, world)) // batch_size))


def _pinned(batch: Any) -> Any:
    if isinstance(batch, dict):
        return {name: _pinned(own) for name, own in batch.items()}
    return batch if batch.is_cuda else batch.pin_memory()


def _check_kind(dataset: object) -> None:
    if not isinstance(dataset, ArrayDataset):
        fix = "Use torch.utils.data.DataLoader for any other data set"
        raise UserError("dataset", "must be a polytask.data.ArrayDataset", type(dataset).__name__, fix)
