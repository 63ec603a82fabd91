"""Times of steps side by side, and the memory of one."""

import resource
import statistics
import time
from collections.abc import Callable
from pathlib import Path

import torch

DEVICE = torch.device("cuda" if torch.cuda.is_available() else "cpu")
Step = Callable[[], object]


def wait() -> None:
    """Let the device finish what it was given."""
    if DEVICE.type == "cuda":
        torch.cuda.synchronize()


def medians(variants: dict[str, tuple[Step, int]], rounds: int) -> dict[str, float]:
    """Seconds for a step of each variant, which takes the given number of steps in a row.

    Each round begins with another variant, after one that does not count.
    """
    names = list(variants)
    times: dict[str, list[float]] = {name: [] for name in names}
    for number in range(rounds + 1):
        first = number % len(names)
        for name in names[first:] + names[:first]:
            step, count = variants[name]
            wait()
            start = time.perf_counter()
            for _ in range(count):
                step()
            wait()
            times[name].append((time.perf_counter() - start) / count)
    return {name: statistics.median(values[1:]) for name, values in times.items()}


def peak() -> float:
    """The device's peak memory in GB, or this process's."""
    if DEVICE.type == "cuda":
        return torch.cuda.max_memory_allocated() / 2**30
    status = Path("/proc/self/status")
    if status.exists():
        # The peak that getrusage gives is that of the parent process where it is larger.
        lines = status.read_text().splitlines()
        return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM")) / 2**20
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**30
