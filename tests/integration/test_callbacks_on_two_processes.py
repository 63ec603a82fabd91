"""Two processes over gloo freeze and log as one process does on the joined batches."""

import sys
from functools import partial

import pytest
import pytorch_lightning as pl
import torch
from torch import nn
from torch.utils.data import DataLoader

from polytask import System
from polytask.adapters import BatchAdapter
from polytask.callbacks import Freezer, LogExpertLoad
from polytask.losses import MultiTaskLoss
from polytask.models import MLP, MMoE, MultiHead
from polytask.optim import OptimizerFactory
from tests.processes import join, run_on_two
from tests.training import quiet_trainer

STEPS, SIZE = 6, 8
TASKS = ("a", "b")


class Kept(pl.Callback):
    """What was logged, and how many parameters had a gradient and how many a state at each step."""

    def __init__(self):
        self.values, self.trained = {}, []

    def on_before_optimizer_step(self, trainer, pl_module, optimizer):
        reached = {name for name, p in pl_module.model.named_parameters() if p.grad is not None}
        self.trained.append((sorted(reached), len(optimizer.state)))

    def on_train_epoch_end(self, trainer, pl_module):
        self.values = {key: float(value) for key, value in trainer.callback_metrics.items()}


class Backbone(nn.Module):
    def __init__(self):
        super().__init__()
        self.low, self.high = nn.Linear(3, 4), nn.Linear(4, 4)

    def forward(self, x):
        return self.high(torch.tanh(self.low(x)))


def heads():
    return {task: nn.Linear(4, 1) for task in TASKS}


def batches(ids):
    """Joined batches: each half is a rank's; with task ids all rows of a rank are of one task."""
    generator = torch.Generator().manual_seed(1)
    for _ in range(STEPS):
        x, y = torch.randn(SIZE, 3, generator=generator), torch.randn(SIZE, 1, generator=generator)
        tasks = torch.tensor([0] * (SIZE // 2) + [1] * (SIZE // 2))
        yield (x, y, tasks) if ids else (x, {"a": y, "b": y.square()})


def share(batch, rank):
    half = slice(rank * SIZE // 2, (rank + 1) * SIZE // 2)
    x, targets, *ids = batch
    own = {task: y[half] for task, y in targets.items()} if isinstance(targets, dict) else targets[half]
    return (x[half], own, *(each[half] for each in ids))


def freezing(until):
    model = MultiHead(Backbone(), heads())
    return model, Freezer(["backbone"], exceptions=["backbone.high"], until_step=until), False


def loads():
    return MMoE(partial(MLP, 3, [], 4), heads(), gate=3, num_experts=3), LogExpertLoad(), True


RUNS = {
    "frozen for good": partial(freezing, None),
    "frozen until a step": partial(freezing, 3),
    "expert loads": loads,
}


def trained(make, rank=None):
    torch.manual_seed(0)
    model, callback, ids = make()
    adapter = BatchAdapter(0, 1, task_accessor=2) if ids else BatchAdapter(0, 1)
    system = System(
        model,
        MultiTaskLoss({task: nn.MSELoss() for task in TASKS}),
        OptimizerFactory(partial(torch.optim.AdamW, lr=0.05), None),
        adapters={"batch": adapter},
    )
    data, kept = list(batches(ids)), Kept()
    data = data if rank is None else [share(batch, rank) for batch in data]
    trainer = quiet_trainer(
        devices=1 if rank is None else 2,
        strategy="auto" if rank is None else "ddp",
        callbacks=[callback, kept],
        use_distributed_sampler=False,
    )
    trainer.fit(system, DataLoader(data, batch_size=None))
    return {
        "parameters": {name: p.detach().clone() for name, p in model.named_parameters()},
        "learns": all(p.requires_grad for p in model.parameters()),
        "values": kept.values,
        "trained": kept.trained,
    }


@pytest.fixture(scope="module")
def two_processes(tmp_path_factory, forkserver):
    path = tmp_path_factory.mktemp("ranks") / "found"
    run_on_two(forkserver, "tests.integration.test_callbacks_on_two_processes", str(path))
    return [torch.load(f"{path}.{rank}") for rank in range(2)]


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", RUNS)
def test_two_processes_do_what_one_does(two_processes, name):
    one = trained(RUNS[name])
    for found in two_processes:
        assert found[name]["trained"] == one["trained"]
        assert found[name]["learns"]
        assert found[name]["parameters"].keys() == one["parameters"].keys()
        for key, value in one["parameters"].items():
            torch.testing.assert_close(found[name]["parameters"][key], value, msg=key)
        assert found[name]["values"].keys() == one["values"].keys()
        for key, value in one["values"].items():
            if key.startswith("experts"):
                assert found[name]["values"][key] == pytest.approx(value, rel=1e-5)


def test_loads_are_of_all_tasks_on_each_rank(two_processes):
    for found in two_processes:
        keys = [key for key in found["expert loads"]["values"] if key.startswith("experts")]
        assert len(keys) == len(TASKS) * 3


def test_what_is_frozen_moves_once_it_is_let_go(two_processes):
    for found in two_processes:
        for_good, steps = found["frozen for good"]["trained"], found["frozen until a step"]["trained"]
        assert all("backbone.low.weight" not in reached for reached, _ in for_good)
        assert ["backbone.low.weight" in reached for reached, _ in steps] == [False] * 3 + [True] * 3
        assert [states for _, states in steps] == [0, 6, 6, 6, 8, 8]


def work(path):
    """What each of the two processes does."""
    rank = join(path)
    torch.save({name: trained(make, rank) for name, make in RUNS.items()}, f"{path}.{rank}")


if __name__ == "__main__":
    work(sys.argv[1])
