"""A model that compiles its backbone: the same losses as without, whatever earlier runs left on the disk."""

import csv
import os
from pathlib import Path

import pytest

from tests.forkserver import ForkServer

NET = """
from polytask.models import MLP
from torch import nn


class Plain(nn.Module):
    def __init__(self):
        super().__init__()
        self.backbone = MLP(2, [8], 8)
        self.heads = nn.ModuleDict({"shape": nn.Linear(8, 3), "height": nn.Linear(8, 1)})

    def forward(self, x):
        h = self.backbone(x)
        return {name: head(h) for name, head in self.heads.items()}


class Compiled(Plain):
    def __init__(self):
        super().__init__()
        self.backbone.compile()
"""
OPTIONS = ("trainer.max_epochs=1", "trainer.accelerator=cpu", "--quiet")


def losses(server: ForkServer, folder: Path, method: str, target: str, caches: Path) -> list[float]:
    change = f"system.criterion.weighting={{_target_: polytask.weighting.{method}}}"
    words = ("fit", "config.yaml", change, f"system.model={{_target_: {target}}}", *OPTIONS)
    env = {**os.environ, "TORCHINDUCTOR_CACHE_DIR": str(caches)}
    run = server.start("polytask", *words, cwd=folder, env=env, warnings="ignore")
    assert run.wait() == 0, run.stderr()
    run.kill()
    (written,) = folder.glob("runs/*/*/metrics.csv")
    with written.open() as file:
        found = [
            float(row["val/loss/total/epoch"]) for row in csv.DictReader(file) if row["val/loss/total/epoch"]
        ]
    written.unlink()
    return found


@pytest.mark.long
def test_methods_in_any_order_train_a_compiled_model(
    demo: Path, forkserver: ForkServer, tmp_path: Path
) -> None:
    """A plain training leaves graphs for one backward in the cache, which the next process reads."""
    (demo / "nets.py").write_text(NET)
    expected = {each: losses(forkserver, demo, each, "nets.Plain", tmp_path) for each in ("Equal", "UPGrad")}
    for method in ("Equal", "UPGrad", "Equal"):
        found = losses(forkserver, demo, method, "nets.Compiled", tmp_path / "caches")
        assert found == pytest.approx(expected[method], rel=1e-5)
