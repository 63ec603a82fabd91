"""Two processes log what one process logs, with labels missing in unequal numbers on each."""

import csv
from pathlib import Path

import pytest

from polytask.cli import main


def values(path: Path) -> dict[str, float]:
    row = list(csv.DictReader(path.read_text().splitlines()))[-1]
    return {key: float(value) for key, value in row.items() if key not in ("epoch", "step")}


def test_validation_on_two_processes_logs_what_one_does(tmp_path, monkeypatch, forkserver):
    monkeypatch.chdir(tmp_path)
    assert main(["init", "demo"]) == 0
    config = ["demo/config.yaml", "trainer.accelerator=cpu", "trainer.max_epochs=1"]
    assert main(["fit", *config, "--run-dir", "run"]) == 0
    written = Path("run/validate/metrics.csv")
    validate = ["validate", *config, "--run-dir", "run"]
    assert main(validate) == 0
    one = values(written)
    written.unlink()
    parallel = ["trainer.devices=2", "trainer.strategy=ddp"]
    done = forkserver.run("polytask", *validate, *parallel, cwd=tmp_path, warnings="default")
    assert done.returncode == 0, done.stderr
    assert values(written) == pytest.approx(one, rel=1e-5)
