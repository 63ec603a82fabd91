"""Loaders whose order follows from a seed, so that a position is two numbers."""

from abc import abstractmethod
from collections.abc import Iterator
from typing import Any

import numpy as np
import torch

from polytask._checks import check_integer
from polytask._errors import UserError
from polytask.data._replay import Resumable, State, check_same, length_of


def ranks() -> tuple[int, int]:
    """This process' number and how many there are.

    Example:
        >>> ranks()
        (0, 1)
    """
    if torch.distributed.is_available() and torch.distributed.is_initialized():
        return torch.distributed.get_rank(), torch.distributed.get_world_size()
    return 0, 1


class SeededLoader(Resumable):
    """A loader whose random numbers in a pass follow from its seed and the pass' number alone.

    A state is therefore the seed, the number of passes begun, and the batches yielded in the last one.

    Args:
        seed: Seed of the order, 0 or more; None for torch's own seed at this moment.

    Raises:
        UserError: If the seed is no such integer.
    """

    def __init__(self, seed: int | None = None) -> None:
        self._given = seed is not None
        self.seed = torch.initial_seed() if seed is None else check_integer(seed, "seed", 0, optional=True)
        self._passes = 0
        self._batches = 0
        self._resume = False

    @abstractmethod
    def batches(self, number: int, first: int) -> Iterator[Any]:
        """The batches of a pass.

        Args:
            number: The pass, from 0.
            first: The first batch, from 0.
        """

    def generator(self, *key: int) -> torch.Generator:
        """A random generator for a key, the same on all processes.

        Args:
            key: Integers of 0 or more.

        Raises:
            UserError: If several processes have no common seed.
        """
        if not self._given and ranks()[1] > 1:
            found = f"None on {ranks()[1]} processes"
            raise UserError(f"{type(self).__name__}.seed", "is required with several processes", found)
        mixed = np.random.SeedSequence([self.seed, *key]).generate_state(1, np.uint64)
        return torch.Generator().manual_seed(int(mixed[0]))

    def __iter__(self) -> Iterator[Any]:
        if not self._resume:
            self._passes, self._batches = self._passes + 1, 0
        self._resume = False
        for batch in self.batches(self._passes - 1, self._batches):
            self._batches += 1
            yield batch
        self._batches = 0

    def state_dict(self) -> State:
        """The seed, the number of passes begun, and the batches yielded in the last one, 0 between passes."""
        length = length_of(self)
        return {
            "batches": 0 if self._batches == length else self._batches,
            "length": length,
            "passes": self._passes,
            "seed": self.seed,
        }

    def load_state_dict(self, state: State) -> None:
        """Restore a state; the next pass continues from there.

        Args:
            state: What `state_dict` returned.

        Raises:
            UserError: If the number of batches differs from the state's.
        """
        check_same("length", state["length"], length_of(self), "batches")
        self._passes, self._batches, self.seed = state["passes"], state["batches"], state["seed"]
        self._resume = self._batches > 0
