"""Modules whose parameters get their shape from the first batch, such as `torch.nn.LazyLinear`."""

import inspect
import sys
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn.modules.lazy import LazyModuleMixin
from torch.utils.data import DataLoader, TensorDataset

import polytask
from polytask.adapters import BatchAdapter
from polytask.checkpoint import load_weights
from polytask.losses import MultiTaskLoss
from polytask.predictions import read_predictions
from polytask.system import System
from tests.training import quiet_trainer

pytestmark = pytest.mark.filterwarnings("ignore:Lazy modules are a new feature")
NET = '''
class Lazy(Net):
    """The sizes of all layers follow from the first batch."""

    def __init__(self):
        super().__init__()
        self.backbone = nn.Sequential(nn.LazyLinear(8), nn.LazyBatchNorm1d(), nn.ReLU(), nn.Dropout(0.2))
        self.heads = nn.ModuleDict({"shape": nn.LazyLinear(3), "height": nn.LazyLinear(1)})
'''
LAZY = sorted(
    name
    for name, kind in vars(nn).items()
    if inspect.isclass(kind) and issubclass(kind, LazyModuleMixin) and kind is not LazyModuleMixin
)


@pytest.fixture
def lazy(demo: Path) -> Path:
    net = demo / "net.py"
    net.write_text(net.read_text() + NET)
    config = demo / "config.yaml"
    text = config.read_text().replace("{_target_: net.Net, width: 8}", "{_target_: net.Lazy}")
    text = text.replace(
        "{_target_: data.Points, rows: 24}", "{_target_: data.Interrupting, rows: 24, reads: 30}"
    )
    config.write_text(text)
    return config


def state(run: str) -> dict[str, torch.Tensor]:
    return torch.load(f"{run}/checkpoints/last.ckpt", weights_only=True)["state_dict"]


@pytest.mark.slow
@pytest.mark.parametrize("weighting", ["UW", "PCGrad"])
def test_a_lazy_model_is_stopped_resumed_tested_and_loaded(cli, lazy, weighting):
    lazy.write_text(
        lazy.read_text().replace(
            "  optimizer:", f"    weighting: {{_target_: polytask.weighting.{weighting}}}\n  optimizer:"
        )
    )
    with pytest.raises(SystemExit):
        cli("fit", "config.yaml", "--quiet", "--run-dir", "stopped")
    assert cli("fit", "--resume", "--run-dir", "stopped", "--quiet").code == 0
    assert cli("fit", "config.yaml", "--quiet", "--run-dir", "whole").code == 0
    one, other = state("stopped"), state("whole")
    assert one.keys() == other.keys()
    assert all(torch.equal(value, other[name]) for name, value in one.items())

    assert cli("test", "--run-dir", "whole", "--ckpt", "last", "--quiet").code == 0
    assert cli("predict", "--run-dir", "whole", "--ckpt", "last", "--quiet").code == 0
    found = cli("fit", "config.yaml", "--quiet", "--ckpt", "whole/checkpoints/last.ckpt", "--run-dir", "more")
    assert found.code == 0

    sys.path.insert(0, str(lazy.parent))
    from data import Points

    written = read_predictions("whole/predictions")
    predicted = polytask.load("whole/checkpoints/last.ckpt", project=".").predict(Points(8).points)
    np.testing.assert_allclose(written["height"], predicted["height"], rtol=1e-5, atol=1e-6)


class One(nn.Module):
    """One layer, whose mean is the output."""

    def __init__(self, name: str) -> None:
        super().__init__()
        kind = getattr(nn, name)
        needed = [
            one for one, value in inspect.signature(kind).parameters.items() if value.default is value.empty
        ]
        self.layer = kind(**dict.fromkeys(needed, 2))

    def forward(self, x: torch.Tensor) -> dict[str, torch.Tensor]:
        return {"a": self.layer(x).flatten(1).mean(1, keepdim=True)}


@pytest.mark.parametrize("name", [name for name in LAZY if "InstanceNorm" not in name])
def test_weights_of_every_lazy_layer_are_loaded(name):
    torch.manual_seed(0)
    x = torch.randn(8, *([3] if name == "LazyLinear" else [3, *[4] * int(name[-2])]))
    data = DataLoader(TensorDataset(x, torch.randn(8, 1)), batch_size=4)

    def system() -> System:
        return System(
            One(name),
            MultiTaskLoss({"a": nn.MSELoss()}),
            partial(torch.optim.Adam, lr=0.1),
            adapters={"batch": BatchAdapter(input_accessor=0, target_accessor={"a": 1})},
        )

    trained = system()
    quiet_trainer(max_epochs=2).fit(trained, data)
    loaded = system()
    load_weights(loaded, {"state_dict": trained.state_dict()}, "x.ckpt")

    assert torch.equal(trained.eval().model(x)["a"], loaded.eval().model(x)["a"])


@pytest.mark.parametrize("name", [name for name in LAZY if "InstanceNorm" in name])
def test_torch_does_not_load_lazy_instance_norms(name):
    """Torch gives the loaded layer no number of features; once it does, the layer joins the test above."""
    x = torch.randn(8, 3, *[4] * int(name[-2]))
    trained, loaded = One(name), One(name)
    trained(x)
    loaded.load_state_dict(trained.state_dict())

    with pytest.raises(ValueError, match="num_features"):
        loaded(x)


@pytest.mark.slow
def test_several_processes_need_the_shapes_before(lazy, forkserver):
    options = "trainer.devices=2", "trainer.strategy=ddp"
    done = forkserver.run("polytask", "fit", "config.yaml", *options, cwd=Path.cwd(), warnings="ignore")
    assert done.returncode == 2, done.stderr
    (line,) = [line for line in done.stderr.splitlines() if line.startswith("error")][:1]
    assert line.startswith("error: model: must have no uninitialized parameters with several processes, got ")
    assert line.endswith("Give the layers their sizes, or train with one process.")
