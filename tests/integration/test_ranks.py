"""Two processes over gloo train what one process trains on the joined batches, with every method."""

import math
import sys
from functools import partial

import pytest
import torch
import torch.distributed as dist
from torch import nn
from torch.utils.data import DataLoader

from polytask import System
from polytask.losses import MultiTaskLoss
from polytask.models import MultiHead
from polytask.optim import OptimizerFactory
from polytask.weighting import MGDA, GradNorm, PCGrad, SDMGrad
from tests.cases import TASKS, WEIGHTINGS, Case
from tests.processes import join, run_on_two
from tests.training import quiet_trainer

NAN = math.nan
STEPS, SIZE = 20, 8
VARIANTS = {
    "representation": (Case("PCGrad", PCGrad), {"level": "representation"}),
    "last_shared": (Case("MGDA", MGDA), {"level": "last_shared"}),
    "refreshed": (Case("MGDA", MGDA), {"refresh_every": 3}),
    "unscaled heads": (Case("GradNorm", GradNorm), {"scale_heads": False}),
}


def net():
    """A backbone of which a and b share a part that c does not reach."""
    torch.manual_seed(0)
    backbone = nn.Sequential(nn.Linear(3, 6), nn.Tanh())
    return MultiHead(backbone, {name: nn.Linear(6, 1) for name in TASKS}).double()


def batches(window):
    """Joined batches: each half of one is a rank's; labels are missing in unequal numbers."""
    generator = torch.Generator().manual_seed(1)
    number = STEPS * window * SIZE
    points = torch.randn(number, 3, generator=generator, dtype=torch.float64)
    targets = 2 + torch.randn(number, 3, generator=generator, dtype=torch.float64)
    if window == 1:
        targets[1::3, 0] = NAN
        targets.unflatten(0, (-1, 2, SIZE // 2))[:, 0, :, 1] = NAN  # never on the first rank
        targets[SIZE + 4 : 2 * SIZE, 1] = NAN  # absent on the second rank
        targets[2 * SIZE : 2 * SIZE + 4] = NAN  # nothing on the first rank
        targets[3 * SIZE : 4 * SIZE] = NAN  # nothing on both
        targets[4 * SIZE : 5 * SIZE, 2] = NAN  # absent everywhere
    return [
        (points[i : i + SIZE], dict(zip(TASKS, targets[i : i + SIZE].split(1, dim=1), strict=True)))
        for i in range(0, number, SIZE)
    ]


def share(batch, rank):
    """A rank's half of a joined batch."""
    points, targets = batch
    half = slice(rank * SIZE // 2, (rank + 1) * SIZE // 2)
    return points[half], {name: target[half] for name, target in targets.items()}


def trained(case, options, window, rank=None):
    """The parameters after training: all of the data, or a rank's part of it."""
    torch.manual_seed(3)
    criterion = MultiTaskLoss({name: nn.MSELoss() for name in TASKS}, weighting=case.build())
    optimizer = OptimizerFactory(partial(torch.optim.SGD, lr=0.02), None)
    system = System(net(), criterion, optimizer, **options)
    data = batches(window)
    data = data if rank is None else [share(batch, rank) for batch in data]
    trainer = quiet_trainer(
        devices=1 if rank is None else 2,
        strategy="auto" if rank is None else "ddp",
        use_distributed_sampler=False,
        gradient_clip_val=1.0,
        accumulate_grad_batches=window,
    )
    trainer.fit(system, DataLoader(data, batch_size=None))
    return [parameter.detach().clone() for parameter in system.parameters()]


# One for each way in which the ranks meet; the others are run by `make test-long`.
SAMPLE = {
    "UW",
    "GradNorm",
    "MGDA",
    "UPGrad",
    "GradDrop",
    "MoCo",
    "representation",
    "refreshed",
    "accumulated",
}


def runs():
    for case in WEIGHTINGS:
        # With its step of 10, SDMGrad makes a thousandth out of a rounding error within twenty steps.
        case = Case("SDMGrad", lambda: SDMGrad(lr=0.1)) if case.name == "SDMGrad" else case
        yield str(case), case, {}, case.build().batches_per_step
    for name, (case, options) in VARIANTS.items():
        yield name, case, options, 1
    yield "accumulated", Case("MGDA", MGDA), {}, 2


def work(path, names):
    """What each of the two processes does."""
    rank, found = join(path), {}
    for name, case, options, window in runs():
        if name not in names:
            continue
        mine = trained(case, options, window, rank)
        other = [parameter.clone() for parameter in mine]
        for parameter in other:
            dist.broadcast(parameter, 0)
        apart = max((a - b).abs().max().item() for a, b in zip(mine, other, strict=True))
        found[name] = (mine, apart)
    torch.save(found, f"{path}.{rank}")


@pytest.fixture(scope="module")
def two_processes(tmp_path_factory, forkserver, request):
    """What both ranks trained with those of the methods that are tested now."""
    own = [item for item in request.session.items if item.path == request.path]
    names = {item.callspec.params["run"][0] for item in own if hasattr(item, "callspec")}
    path = tmp_path_factory.mktemp("ranks") / "found"
    run_on_two(forkserver, "tests.integration.test_ranks", str(path), *sorted(names))
    return [torch.load(f"{path}.{rank}") for rank in range(2)]


every_run = pytest.mark.parametrize(
    "run",
    [pytest.param(run, marks=() if run[0] in SAMPLE else pytest.mark.long, id=run[0]) for run in runs()],
)


@pytest.mark.filterwarnings("ignore")
@every_run
def test_two_processes_train_what_one_does(two_processes, run):
    name, case, options, window = run
    one = trained(case, options, window)
    for found in two_processes:
        for mine, expected in zip(found[name][0], one, strict=True):
            torch.testing.assert_close(mine, expected, rtol=1e-5, atol=1e-7)


def test_the_sample_is_of_known_runs():
    assert {run[0] for run in runs()} >= SAMPLE


@every_run
def test_ranks_stay_identical(two_processes, run):
    assert [found[run[0]][1] for found in two_processes] == [0.0, 0.0]


if __name__ == "__main__":
    work(sys.argv[1], sys.argv[2:])
