"""Runs of version 0.1.0: they load, predict, are reported, and resume as that version would have gone on.

``tests/data/version_0_1_0`` holds for two weightings a run that was stopped in its second epoch, and the same
run without a stop, as that version wrote them for the project of ``tests/conftest.py`` in ``/tmp/points``.
"""

import csv
import shutil
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch

import polytask
from tests.conftest import DATA, NET

KEPT = Path(__file__).parents[1] / "data" / "version_0_1_0"


@pytest.fixture(params=["dwa", "upgrad"])
def project(request, tmp_path, monkeypatch):
    folder = tmp_path / request.param
    shutil.copytree(KEPT / request.param, folder)
    for name, text in (("data.py", DATA), ("net.py", NET), ("interrupted", "")):
        (folder / name).write_text(text)
    for config in folder.glob("*/config.yaml"):
        text = config.read_text()
        assert f"/tmp/points/{request.param}" in text
        config.write_text(text.replace(f"/tmp/points/{request.param}", str(folder)))
    monkeypatch.chdir(folder)
    return folder


def rows(run):
    with (run / "metrics.csv").open() as file:
        return list(csv.DictReader(file))


def values(row):
    return {key: float(value) for key, value in row.items() if value}


def test_a_stopped_run_resumes_as_that_version_would(project, cli):
    """As far as processors round alike: those files were written on another one."""
    stopped, whole = rows(project / "stopped"), rows(project / "whole")
    assert len(stopped) < len(whole)

    result = cli("fit", "--run-dir", project / "stopped", "--resume")

    assert result.code == 0, result.err
    stopped = rows(project / "stopped")
    assert len(stopped) == len(whole)
    for found, expected in zip(stopped, whole, strict=True):
        assert values(found) == pytest.approx(values(expected), rel=1e-4)
    weights = [
        torch.load(project / run / "checkpoints" / "best.ckpt", weights_only=True)["state_dict"]
        for run in ("stopped", "whole")
    ]
    assert weights[0].keys() == weights[1].keys()
    for name, value in weights[0].items():
        torch.testing.assert_close(value, weights[1][name], rtol=1e-5, atol=1e-6)


def test_a_run_predicts_what_that_version_predicted(project, cli):
    kept = pq.read_table(project / "whole" / "predictions" / "predictions.parquet").to_pydict()
    result = cli("predict", "--run-dir", project / "whole")
    assert result.code == 0, result.err
    again = pq.read_table(project / "whole" / "predictions" / "predictions.parquet").to_pydict()
    for name, expected in kept.items():
        np.testing.assert_allclose(again[name], expected, rtol=1e-5, atol=1e-6)

    inputs = points()
    outputs = polytask.load(project / "whole").predict(inputs)
    for name, values in outputs.items():
        np.testing.assert_allclose(values.squeeze(), np.array(kept[name]).squeeze(), rtol=1e-5, atol=1e-6)


def points():
    angles = 2 * torch.pi * (torch.arange(8) * 0.618 % 1)
    return torch.stack([angles.cos(), angles.sin()], dim=1).numpy()


def test_a_run_is_tested_and_reported(project, cli):
    assert cli("test", "--run-dir", project / "whole").code == 0
    result = cli("report", project / "whole", project / "stopped")
    assert result.code == 0, result.err


@pytest.mark.slow
def test_a_change_that_such_a_checkpoint_cannot_show_is_named(project, cli):
    result = cli("fit", "--run-dir", project / "stopped", "--resume", "system.optimizer.lr=0.5")
    assert result.code == 0, result.err
    assert "without effect, since the run has it from its checkpoint: system.optimizer.lr" in result.out
