"""Tests that need two processes of one group."""

import os
import socket
import subprocess
import sys
from pathlib import Path


def run_on_two(module: str, path: Path, seconds: int = 300) -> None:
    """Run a module as two ranks over gloo; each is given the path, beside which its errors are kept."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    shared = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "WORLD_SIZE": "2", "GROUP_RANK": "0"}
    shared |= {"LOCAL_WORLD_SIZE": "2", "TORCHELASTIC_RUN_ID": "ranks", "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-W", "ignore", "-m", module, str(path)]
    workers = []
    for rank in range(2):
        with Path(f"{path}.{rank}.log").open("w") as said:
            own = {**os.environ, **shared, "RANK": str(rank), "LOCAL_RANK": str(rank)}
            workers.append(subprocess.Popen(command, env=own, stderr=said))
    try:
        for rank in (1, 0):
            assert workers[rank].wait(timeout=seconds) == 0, Path(f"{path}.{rank}.log").read_text()[-3000:]
    finally:
        for worker in workers:
            worker.kill()
