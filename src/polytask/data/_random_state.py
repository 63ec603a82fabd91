"""The random states of this process as plain data that a checkpoint may hold."""

import random
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch

RandomStates = dict[str, Any]


def host_state() -> RandomStates:
    """The states of ``random``, ``numpy.random`` and torch on the CPU, as lists and tensors.

    Example:
        >>> state = host_state()
        >>> first = torch.rand(())
        >>> set_host_state(state)
        >>> bool(torch.rand(()) == first)
        True
    """
    version, internal, gauss = random.getstate()
    name, keys, position, has_gauss, cached = np.random.get_state(legacy=True)
    return {
        "python": [version, list(internal), gauss],
        "numpy": [str(name), [int(key) for key in keys], int(position), int(has_gauss), float(cached)],
        "torch": torch.get_rng_state(),
    }


def set_host_state(state: RandomStates) -> None:
    """Restore what `host_state` returned."""
    version, internal, gauss = state["python"]
    random.setstate((version, tuple(internal), gauss))
    name, keys, position, has_gauss, cached = state["numpy"]
    np.random.set_state((name, np.array(keys, dtype=np.uint32), position, has_gauss, cached))
    torch.set_rng_state(state["torch"])


def full_state() -> RandomStates:
    """`host_state`, and the state of every CUDA device that this process can see."""
    return {**host_state(), "cuda": torch.cuda.get_rng_state_all() if torch.cuda.is_available() else []}


def set_full_state(state: RandomStates) -> None:
    """Restore what `full_state` returned; devices that do not exist here are left out."""
    set_host_state(state)
    for device, device_state in enumerate(state["cuda"][: torch.cuda.device_count()]):
        torch.cuda.set_rng_state(device_state, device)


@contextmanager
def states_kept() -> Iterator[None]:
    """Restore the random states of this process at the end of a block.

    Example:
        >>> _ = torch.manual_seed(0)
        >>> with states_kept():
        ...     first = torch.rand(())
        >>> bool(torch.rand(()) == first)
        True
    """
    state = full_state()
    try:
        yield
    finally:
        set_full_state(state)


def drawn(before: RandomStates, after: RandomStates) -> set[str]:
    """The sources whose random numbers were used between two host states.

    Example:
        >>> before = host_state()
        >>> _ = random.random()
        >>> drawn(before, host_state())
        {'python'}
    """
    moved = {name for name in ("python", "numpy") if before[name] != after[name]}
    return moved if torch.equal(before["torch"], after["torch"]) else moved | {"torch"}
