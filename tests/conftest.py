"""A small project on disk and the command line in this process, for every test that asks for them."""

import os
import sys
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from hypothesis import settings

from tests.forkserver import ForkServer

# The same examples in every run, however slow the machine is; `--hypothesis-profile=search` draws new ones.
settings.register_profile("search", deadline=None)
settings.register_profile("same", deadline=None, derandomize=True, database=None)
settings.load_profile("same")

CONFIG = """\
project: .
seed: 0
trainer:
  max_epochs: 2
  accelerator: cpu
  log_every_n_steps: 2
system:
  model: {_target_: net.Net, width: 8}
  criterion:
    _target_: polytask.losses.MultiTaskLoss
    task_losses:
      shape: {_target_: torch.nn.CrossEntropyLoss}
      height: {_target_: torch.nn.MSELoss}
  optimizer: {_target_: torch.optim.SGD, lr: 0.1}
  metrics:
    shape: {_target_: torchmetrics.Accuracy, task: multiclass, num_classes: 3}
    height: {_target_: torchmetrics.MeanSquaredError}
  dataloaders:
    train:
      _target_: torch.utils.data.DataLoader
      dataset: {_target_: data.Points, rows: 24}
      batch_size: 4
      shuffle: true
    val: {_target_: torch.utils.data.DataLoader, dataset: {_target_: data.Points, rows: 8}, batch_size: 8}
    test: {_target_: torch.utils.data.DataLoader, dataset: {_target_: data.Points, rows: 8}, batch_size: 8}
    predict: {_target_: torch.utils.data.DataLoader, dataset: {_target_: data.Points, rows: 8}, batch_size: 3}
"""

DATA = '''\
"""Points in a plane: which third of the circle they lie in, and how high."""

import math
import os
import signal
import sys
from pathlib import Path

import torch
from pytorch_lightning import Callback
from torch.utils.data import Dataset


class Points(Dataset):
    def __init__(self, rows=24, shape="shape", height="height"):
        angles = 2 * math.pi * (torch.arange(rows) * 0.618 % 1)
        self.points = torch.stack([angles.cos(), angles.sin()], dim=1)
        self.shapes = (angles * 3 / (2 * math.pi)).long()
        self.heights = angles.sin()
        self.names = shape, height

    def __len__(self):
        return len(self.points)

    def __getitem__(self, i):
        shape, height = self.names
        return self.points[i], {shape: self.shapes[i], height: self.heights[i]}


class Untouchable(Points):
    """Leaves a file behind where somebody makes one."""

    def __init__(self, rows=24):
        super().__init__(rows)
        Path("touched").touch()


class Unlabelled(Points):
    def __init__(self, rows=24):
        super().__init__(rows)
        self.heights[:] = math.nan


class FourClasses(Points):
    def __init__(self, rows=24):
        super().__init__(rows)
        self.shapes[5] = 3


class Infinite(Points):
    """One height is infinite, in the given row."""

    def __init__(self, rows=24, row=13):
        super().__init__(rows)
        self.heights[row] = math.inf


class LaterInfinite(Points):
    """The heights become infinite once every row was read."""

    def __init__(self, rows=24):
        super().__init__(rows)
        self.reads = 0

    def __getitem__(self, i):
        self.reads += 1
        point, targets = super().__getitem__(i)
        return point, {**targets, "height": targets["height"] if self.reads <= len(self) else math.inf}


class Wide(Points):
    def __init__(self, rows=24):
        super().__init__(rows)
        self.points = torch.zeros(rows, 5)


class Lost(Points):
    def __getitem__(self, i):
        return open("images/0.png").read()


def first():
    """Whether this is the first of all processes to ask: two signals would be a second Ctrl-C."""
    try:
        Path("interrupted").touch(exist_ok=False)
    except FileExistsError:
        return False
    return True


class Interrupting(Points):
    """Interrupts the run, as Ctrl-C does, when a row is read for the n-th time in one process.

    Once only: a file tells that it was done. The rows are noisy, as augmented ones are.
    """

    def __init__(self, rows=24, reads=30, times=1):
        super().__init__(rows)
        self.left, self.times = reads, times
        self.process = os.getpid()

    def __getitem__(self, i):
        self.left -= 1
        if self.left == 0 and first():
            for _ in range(self.times):
                os.kill(self.process, signal.SIGINT)
        point, targets = super().__getitem__(i)
        return point + 0.1 * torch.randn(2), targets


class Held(Callback):
    """Holds the run, in the first batch of its second epoch, until its input ends; once only."""

    def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
        if trainer.current_epoch == 1 and first():
            sys.stdin.read()
'''

NET = '''\
"""Models and criteria, some of them wrong on purpose."""

from torch import nn


class Net(nn.Module):
    def __init__(self, width=8):
        super().__init__()
        self.backbone = nn.Sequential(nn.Linear(2, width), nn.ReLU(), nn.Dropout(0.2))
        self.heads = nn.ModuleDict({"shape": nn.Linear(width, 3), "height": nn.Linear(width, 1)})

    def forward(self, x):
        h = self.backbone(x)
        return {name: head(h) for name, head in self.heads.items()}


class OnlyShape(Net):
    def forward(self, x):
        return {"shape": super().forward(x)["shape"]}


class Pair(Net):
    """Two numbers for the height."""

    def __init__(self, width=8):
        super().__init__(width)
        self.heads["height"] = nn.Linear(width, 2)


class Listed(Net):
    def forward(self, x):
        return list(super().forward(x).values()) * 2


class Raising(Net):
    def forward(self, x):
        raise ValueError("not today")


class Untotalled(nn.Module):
    def forward(self, outputs, targets):
        return {"shape": outputs["shape"].mean(), "height": outputs["height"].mean()}


class Vector(nn.Module):
    def forward(self, outputs, targets):
        return outputs["height"]
'''


@dataclass(frozen=True)
class Result:
    """What a command gave."""

    code: int
    out: str
    err: str

    @property
    def run(self) -> Path:
        """The run folder that the last line names."""
        word, _, folder = self.out.splitlines()[-1].partition(": ")
        assert word == "run", self.out
        return Path(folder)


Cli = Callable[..., Result]


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--sample", type=int, metavar="N", help="run at most N of the cases of each parametrized test"
    )


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Keep the sample: cases at equal distances, from another one on in each test, the same in every run."""
    most = config.getoption("--sample")
    if most is None:
        return
    tests: dict[str, list[pytest.Item]] = {}
    for item in items:
        tests.setdefault(item.nodeid.partition("[")[0], []).append(item)
    kept = set()
    for name, cases in tests.items():
        start, count = zlib.crc32(name.encode()), min(most, len(cases))
        kept.update(cases[(start + i * len(cases) // count) % len(cases)] for i in range(count))
    config.hook.pytest_deselected(items=[item for item in items if item not in kept])
    items[:] = [item for item in items if item in kept]


@pytest.fixture(scope="session")
def forkserver() -> Iterator[ForkServer]:
    """Runs modules in processes of their own, without seconds of imports for each."""
    with ForkServer() as server:
        yield server


@pytest.fixture(autouse=True)
def _same_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is shown depends on the terminal that the tests are started from."""
    monkeypatch.setenv("TERM", "xterm")
    for name in ("COLUMNS", "LINES", "FORCE_COLOR", "NO_COLOR", "TTY_COMPATIBLE", "TTY_INTERACTIVE"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def _as_before(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Undo what a command does to its process, which a process of its own would take with it."""
    from polytask.config import _project

    monkeypatch.setattr(sys, "excepthook", sys.excepthook)
    for name in (_project.VARIABLE, "PL_GLOBAL_SEED", "PL_SEED_WORKERS"):
        monkeypatch.setenv(name, "")
        monkeypatch.delenv(name)
    path = list(sys.path)
    yield
    for finder in [f for f in sys.meta_path if isinstance(f, _project.ProjectFinder)]:
        sys.meta_path.remove(finder)
        _project.forget(name for name in finder.served if _project.is_from(finder.folder, name))
    sys.path[:] = path


@pytest.fixture
def demo(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with ``config.yaml``, ``data.py`` and ``net.py``, which is the current one."""
    folder = tmp_path / "demo"
    folder.mkdir()
    for name, text in (("config.yaml", CONFIG), ("data.py", DATA), ("net.py", NET)):
        (folder / name).write_text(text)
    monkeypatch.chdir(folder)
    return folder


@pytest.fixture
def cli(_as_before: None, capsys: pytest.CaptureFixture[str]) -> Cli:
    """The command line in this process; an exception that is not caught fails the test."""
    from polytask.cli import main

    def run(*words: str | os.PathLike[str]) -> Result:
        capsys.readouterr()
        code = main([os.fspath(word) for word in words])
        captured = capsys.readouterr()
        return Result(code, captured.out, captured.err)

    return run
