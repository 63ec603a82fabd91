"""Tests that need two processes of one group."""

import os
import subprocess
import sys
from pathlib import Path

import torch.distributed as dist

# Ends what hangs; the slowest machine is done long before.
PATIENCE = 1800


def run_on_two(module: str, path: Path) -> None:
    """Run a module as two ranks; each is given the path, beside which its errors are kept."""
    shared = {"WORLD_SIZE": "2", "GROUP_RANK": "0", "LOCAL_WORLD_SIZE": "2"}
    shared |= {"TORCHELASTIC_RUN_ID": "ranks", "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-W", "ignore", "-m", module, str(path)]
    workers = []
    for rank in range(2):
        with Path(f"{path}.{rank}.log").open("w") as said:
            own = {**os.environ, **shared, "RANK": str(rank), "LOCAL_RANK": str(rank)}
            workers.append(subprocess.Popen(command, env=own, stderr=said))
    try:
        for rank in (1, 0):
            assert workers[rank].wait(timeout=PATIENCE) == 0, Path(f"{path}.{rank}.log").read_text()[-3000:]
    finally:
        for worker in workers:
            worker.kill()


def join(path: str) -> int:
    """Meet the other rank over gloo; which rank this is.

    In a file, for a port that is free when it is looked for may be taken once both have started.
    """
    rank = int(os.environ["RANK"])
    dist.init_process_group("gloo", init_method=f"file://{path}.group", rank=rank, world_size=2)
    return rank
