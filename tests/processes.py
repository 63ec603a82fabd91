"""Tests that need two processes of one group."""

import os

import torch.distributed as dist

from tests.forkserver import ForkServer


def run_on_two(server: ForkServer, module: str, *arguments: str) -> None:
    """Run a module as two ranks, each with these arguments."""
    shared = {"WORLD_SIZE": "2", "GROUP_RANK": "0", "LOCAL_WORLD_SIZE": "2"}
    shared |= {"TORCHELASTIC_RUN_ID": "ranks", "OMP_NUM_THREADS": "1"}
    workers = []
    try:
        for rank in range(2):
            env = {**os.environ, **shared, "RANK": str(rank), "LOCAL_RANK": str(rank)}
            workers.append(server.start(module, *arguments, env=env, warnings="ignore"))
        for worker in reversed(workers):
            assert worker.wait() == 0, worker.stderr()[-3000:]
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
