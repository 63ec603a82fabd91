"""Mistakes in documents that users follow: ``polytask check`` names each in one line, with what to do."""

import shutil
from pathlib import Path

import pytest

from tests.projects.tutorial import truth

TUTORIAL = Path(__file__).parent / "tutorial"
METRIC = "system.metrics.val.segmentation=[{_target_: torchmetrics.DiceMetric, task: binary}]"
NET = """\
from torch import nn


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.backbone = nn.Sequential()
        self.backbone.fc = nn.Linear(8, 3)
        self.backbone.fc = nn.Identity()
        self.head = nn.Linear(self.backbone.fc.in_features, 4)
"""


@pytest.fixture
def tutorial(tmp_path, monkeypatch):
    folder = tmp_path / "tutorial"
    shutil.copytree(TUTORIAL, folder, ignore=shutil.ignore_patterns("truth.py", "__pycache__"))
    truth.data(folder)
    monkeypatch.chdir(folder)
    return folder


def test_a_metric_that_does_not_exist(cli, tutorial):
    found = cli("check", "config.yaml", METRIC)
    assert found.code == 2
    (line, count) = found.err.splitlines()
    assert line.endswith(
        "'torchmetrics' has no 'DiceMetric'. Did you mean 'torchmetrics.segmentation.DiceScore'?"
    )
    assert count == "1 problem"


def test_a_layer_that_is_read_after_it_was_replaced(cli, tutorial):
    (tutorial / "projects/shapes/models/net.py").write_text(NET)
    found = cli("check", "config.yaml", "system.model={_target_: models.net.Net}")
    assert found.code == 2
    (line, _) = found.err.splitlines()
    assert "'models.net.Net' could not be built: AttributeError: 'Identity' object has no attribute" in line
    assert line.endswith(f"Look at line 10 of {tutorial}/projects/shapes/models/net.py.")


def test_keys_at_the_top_level_mean_the_same_as_under_system(cli, tutorial):
    """The optimizer and the scheduler, as the document has them."""
    text = Path("config.yaml").read_text()
    first, second = text.index("\noptimizer:"), text.index("\nscheduler:")
    optimizer, scheduler = text[first:second], text[second:]
    under = "".join(f"  {line}\n" if line else "\n" for line in (optimizer + scheduler).splitlines())
    Path("under.yaml").write_text(text[:first] + "\n" + under)
    values = []
    for config in ("config.yaml", "under.yaml"):
        result = cli("fit", config, "trainer.max_epochs=1")
        assert result.code == 0, result.err
        values.append((result.run / "metrics.csv").read_text())
    assert values[0] == values[1]


def test_the_documents_own_package_has_another_name_here(cli, tutorial):
    text = Path("config.yaml").read_text()
    Path("config.yaml").write_text(text.replace("_target_: polytask.System", "_target_: lighter.System"))
    found = cli("check", "config.yaml")
    assert found.code == 2
    assert "system._target_: 'lighter.System' cannot be imported" in found.err
