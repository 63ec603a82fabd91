"""What the launchers of processes tell them, and trainings that are started as each of them does."""

import os
import socket
import sys
from dataclasses import dataclass, field
from datetime import timedelta
from importlib import import_module
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import torch.distributed as dist

from polytask.cli import main
from tests.forkserver import ForkServer

# Two nodes of one process each, as far as a launcher says so; the processes meet in a file, not at a port.
NODES = ("trainer.num_nodes=2", "trainer.devices=1", "trainer.strategy=ddp")


@dataclass(frozen=True)
class Launcher:
    """What a launcher tells its processes; ``{rank}`` is the rank of the process, and of its node.

    Args:
        variables: Environment variables.
        options: Words of the command that a user has to add.
        missing: Why no process can be started here; empty if it can.
    """

    variables: dict[str, str] = field(default_factory=dict)
    options: tuple[str, ...] = ()
    missing: str = ""


ADDRESS = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "29500"}
PLUGIN = "trainer.plugins=[{{_target_: pytorch_lightning.plugins.environments.{}}}]".format
TORCHRUN = {"RANK": "{rank}", "LOCAL_RANK": "0", "WORLD_SIZE": "2", "LOCAL_WORLD_SIZE": "1"}
SRUN = {
    "SLURM_JOB_ID": "4711",
    "SLURM_JOB_NAME": "train",
    "SLURM_STEP_ID": "0",
    "SLURM_NTASKS": "2",
    "SLURM_NTASKS_PER_NODE": "1",
    "SLURM_NNODES": "2",
    "SLURM_NODELIST": "node[0-1]",
    "SLURM_PROCID": "{rank}",
    "SLURM_LOCALID": "0",
    "SLURM_NODEID": "{rank}",
}
JSRUN = {
    "LSB_JOBID": "4711",
    "LSB_DJOB_RANKFILE": "hosts",
    "JSM_NAMESPACE_SIZE": "2",
    "JSM_NAMESPACE_RANK": "{rank}",
    "JSM_NAMESPACE_LOCAL_RANK": "0",
}
LAUNCHERS = {
    "TorchElasticEnvironment": Launcher(
        TORCHRUN | ADDRESS | {"GROUP_RANK": "{rank}", "TORCHELASTIC_RUN_ID": "4711"}
    ),
    "SLURMEnvironment": Launcher(SRUN),
    "LSFEnvironment": Launcher(JSRUN),
    "MPIEnvironment": Launcher({"OMPI_COMM_WORLD_RANK": "{rank}"}),
    "KubeflowEnvironment": Launcher(
        ADDRESS | {"RANK": "{rank}", "WORLD_SIZE": "2"}, (PLUGIN("KubeflowEnvironment"),)
    ),
    "LightningEnvironment": Launcher(ADDRESS | {"NODE_RANK": "{rank}"}),
    "XLAEnvironment": Launcher(missing="it is for TPUs, whose processes the fit itself starts"),
}


@dataclass(frozen=True)
class Ended:
    """How the process of each rank ended."""

    codes: list[int]
    out: list[str]
    err: list[str]


def launch(server: ForkServer, name: str, group: Path, *words: str) -> Ended:
    """Run the command as two nodes, as a launcher does; wait for both."""
    launcher, processes = LAUNCHERS[name], []
    try:
        for rank in range(2):
            told = {key: value.format(rank=rank) for key, value in launcher.variables.items()}
            command = (name, f"{group}", f"{rank}", *words, *launcher.options)
            env = {**os.environ, **told, "OMP_NUM_THREADS": "1"}
            module = "tests.launchers"
            started = server.start(module, *command, cwd=Path.cwd(), env=env, warnings="ignore")
            processes.append(started)
        codes = [process.wait() for process in processes]
        return Ended(codes, [p.stdout() for p in processes], [p.stderr() for p in processes])
    finally:
        for process in processes:
            process.kill()


def communicator(rank: int, size: int) -> SimpleNamespace:
    """What the environment of MPI needs of ``mpi4py``, over the group that the tests' processes have."""

    def bcast(value: Any, root: int) -> Any:
        values = [value]
        dist.broadcast_object_list(values, root)
        return values[0]

    def gather(value: Any, root: int) -> list[Any] | None:
        values: list[Any] = [None] * size
        dist.all_gather_object(values, value)
        return values if rank == root else None

    return SimpleNamespace(
        Get_rank=lambda: rank,
        Get_size=lambda: size,
        bcast=bcast,
        gather=gather,
        Split=lambda color: communicator(0, 1),
    )


def work(name: str, group: str, rank: int, words: list[str]) -> int:
    """What each of the two processes does."""
    store = f"file://{group}"
    # What waits longer hangs: the rest of the test says which of the two processes did.
    patience = timedelta(minutes=10)
    dist.init_process_group("gloo", init_method=store, rank=rank, world_size=2, timeout=patience)
    socket.gethostname = lambda: f"node{rank}"
    if name == "MPIEnvironment":
        package, module = ModuleType("mpi4py"), ModuleType("mpi4py.MPI")
        package.MPI, module.COMM_WORLD = module, communicator(rank, 2)
        sys.modules |= {"mpi4py": package, "mpi4py.MPI": module}
        import_module("lightning_fabric.plugins.environments.mpi")._MPI4PY_AVAILABLE = True
    return main(words)


if __name__ == "__main__":
    sys.exit(work(sys.argv[1], sys.argv[2], int(sys.argv[3]), sys.argv[4:]))
