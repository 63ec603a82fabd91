"""The Tox21 example on a small table of molecules, through the command line and over seeds."""

import csv
import gzip
import random
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import yaml

from polytask.predictions import read_predictions
from tests.scripts import load_script

pytest.importorskip("sklearn")

EXAMPLE = Path(__file__).parents[2] / "examples" / "tox21"
CONFIG = EXAMPLE / "config.yaml"
TASKS = yaml.safe_load(CONFIG.read_text())["vars"]["targets"]
PIECES = ("C", "N", "O", "Cl", "c1ccccc1", "S(=O)", "C#N", "Br")
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


def module():
    return load_script("tox21_seeds", EXAMPLE / "seeds.py")


@pytest.fixture
def seeds(cli, monkeypatch):
    """The script that averages over seeds, its commands run in this process."""

    def run(call, **options):
        done = cli(*call[call.index("polytask") + 1 :])
        return SimpleNamespace(returncode=done.code, stderr=done.err)

    found = module()
    monkeypatch.setattr(found, "subprocess", SimpleNamespace(run=run))
    return found


def test_check_fit_test_and_predict(cli, seeds, molecules, tmp_path):
    words = [f"vars.file={molecules}", *SMALL]
    assert cli("check", CONFIG, *words).code == 0
    found = seeds.auroc(tmp_path / "run", words)
    assert list(found) == list(TASKS)
    assert sum(found.values()) / len(found) > 0.7
    assert cli("predict", CONFIG, *words, "--run-dir", tmp_path / "run").code == 0
    predictions = read_predictions(tmp_path / "run" / "predictions")
    assert set(predictions) == set(TASKS)
    assert all(chance.shape == (50,) for chance in predictions.values())
    assert all(0 < chance.min() < chance.max() < 1 for chance in predictions.values())


def test_seeds_report_their_mean(monkeypatch, capsys):
    script, calls = module(), []

    def auroc(run, words):
        calls.append(words)
        return {"a": 0.5 + 0.1 * len(calls), "b": 0.7}

    monkeypatch.setattr(script, "auroc", auroc)
    monkeypatch.setattr(sys, "argv", ["seeds.py", "t.csv", "--seeds", "2", "vars.features=128"])
    script.main()
    assert capsys.readouterr().out.splitlines() == [
        "seed 0: 0.6500",
        "seed 1: 0.7000",
        "a              0.6500",
        "b              0.7000",
        "mean ROC-AUC over 2 seeds: 0.6750 ± 0.0354",
    ]
    assert [words[1:] for words in calls] == [
        [f"seed={seed}", f"vars.split={seed}", "vars.features=128"] for seed in (0, 1)
    ]


def test_a_seed_that_fails_says_why(seeds, tmp_path):
    with pytest.raises(SystemExit, match="there is no such file"):
        seeds.auroc(tmp_path / "run", [f"vars.file={tmp_path / 'nowhere.csv'}"])


def test_a_missing_file_is_one_line(cli, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    found = cli("fit", CONFIG, "vars.file=nowhere.csv")
    assert found.code == 2
    assert found.err.count("\n") == 1
    assert "nowhere.csv: there is no such file" in found.err
    assert not Path("runs").exists()
