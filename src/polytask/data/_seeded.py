"""Loaders whose order follows from a seed, so that a position is two numbers."""

from abc import abstractmethod
from collections.abc import Iterator
from typing import Any

import numpy as np
import torch

from polytask._checks import is_integer
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
    """A loader whose every pass is drawn from its seed and the pass' number, and from nothing else.

    A state is therefore the seed, the passes begun, and the batches taken of the last one.

    Args:
        seed: Of the order, 0 or more; torch's own seed at this moment where None.

    Raises:
        UserError: Where the seed is none.
    """

    def __init__(self, seed: int | None = None) -> None:
        if seed is not None and not is_integer(seed, 0):
            raise UserError("seed", "is an integer, 0 or more", repr(seed))
        self._given = seed is not None
        self.seed = torch.initial_seed() if seed is None else int(seed)
        self._passes = 0
        self._batches = 0
        self._resume = False

    @abstractmethod
    def batches(self, number: int, first: int) -> Iterator[Any]:
        """The batches of a pass.

        Args:
            number: The pass, from 0.
            first: The batch to begin with, from 0.
        """

    def generator(self, *key: int) -> torch.Generator:
        """Random numbers of their own for a key, the same on all processes.

        Args:
            key: Numbers of 0 or more.

        Raises:
            UserError: Where several processes were given no common seed.
        """
        if not self._given and ranks()[1] > 1:
            found = f"{ranks()[1]} processes, each with a seed of its own"
            raise UserError(type(self).__name__, "needs a seed where there are several processes", found)
        words = np.random.SeedSequence([self.seed, *key]).generate_state(1, np.uint64)
        return torch.Generator().manual_seed(int(words[0]))

    def __iter__(self) -> Iterator[Any]:
        if not self._resume:
            self._passes, self._batches = self._passes + 1, 0
        self._resume = False
        for batch in self.batches(self._passes - 1, self._batches):
            self._batches += 1
            yield batch
        self._batches = 0

    def state_dict(self) -> State:
        """The seed, the passes begun and the batches taken of the last one; 0 of them between two passes."""
        length = length_of(self)
        return {
            "batches": 0 if self._batches == length else self._batches,
            "length": length,
            "passes": self._passes,
            "seed": self.seed,
        }

    def load_state_dict(self, state: State) -> None:
        """Take a state; the next pass goes on from there.

        Args:
            state: What `state_dict` gave.

        Raises:
            UserError: Where the loader has another number of batches than the state's.
        """
        check_same("length", state["length"], length_of(self), "batches")
        self._passes, self._batches, self.seed = state["passes"], state["batches"], state["seed"]
        self._resume = self._batches > 0
