"""The Tox21 example on a small table of molecules, through the command line and over seeds."""

import csv
import gzip
import random
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from polytask.predictions import read_predictions

pytest.importorskip("sklearn")

EXAMPLE = Path(__file__).parents[2] / "examples" / "tox21"
CONFIG = EXAMPLE / "config.yaml"
TASKS = yaml.safe_load(CONFIG.read_text())["vars"]["targets"]
PIECES = ("C", "N", "O", "Cl", "c1ccccc1", "S(=O)", "C#N", "Br")
# Lightning wants to know rows that only its own writers of single batches need.
INDICES = "ignore:Couldn't infer the batch indices"
SMALL = ("vars.features=128", "trainer.max_epochs=3", "trainer.log_every_n_steps=4")


@pytest.fixture
def molecules(tmp_path):
    """Each task's label says whether a piece is in the molecule; one in six is missing."""
    draw = random.Random(0)
    path = tmp_path / "molecules.csv.gz"
    with gzip.open(path, "wt", newline="") as file:
        writer = csv.writer(file)
        writer.writerow([*TASKS.values(), "mol_id", "smiles"])
        for i in range(500):
            pieces = draw.choices(PIECES, k=5)
            labels = [int(PIECES[task % len(PIECES)] in pieces) for task in range(len(TASKS))]
            shown = ["" if draw.random() < 1 / 6 else label for label in labels]
            writer.writerow([*shown, f"M{i}", "".join(pieces)])
    return path


@pytest.mark.filterwarnings(INDICES)
def test_fit_test_and_predict(cli, molecules, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    words = [str(CONFIG), f"vars.file={molecules}", *SMALL]
    assert cli("check", *words).code == 0
    fitted = cli("fit", *words)
    assert fitted.code == 0, fitted.err
    tested = cli("test", *words, "--ckpt", "best")
    assert tested.code == 0, tested.err
    assert cli("predict", *words).code == 0
    predictions = read_predictions(fitted.run / "predictions")
    assert set(predictions) == set(TASKS)
    assert all(chance.shape == (50,) for chance in predictions.values())
    assert all(0 < chance.min() < chance.max() < 1 for chance in predictions.values())


def test_seeds_report_their_mean(molecules):
    call = [sys.executable, "-W", "error", str(EXAMPLE / "seeds.py"), str(molecules), "--seeds", "1", *SMALL]
    done = subprocess.run(call, capture_output=True, text=True, check=False, cwd=molecules.parent)
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert [line.split()[0] for line in lines[1:-1]] == list(TASKS)
    mean = sum(float(line.split()[1]) for line in lines[1:-1]) / len(TASKS)
    assert float(lines[-1].split()[-3]) == pytest.approx(mean, abs=1e-3)
    assert mean > 0.7


def test_a_missing_file_is_one_line(cli, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    found = cli("fit", CONFIG, "vars.file=nowhere.csv")
    assert found.code == 2
    assert found.err.count("\n") == 1
    assert "nowhere.csv: there is no such file" in found.err
    assert not Path("runs").exists()
