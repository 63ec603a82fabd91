"""The census example on a small table, through the command line; its maps come from the checkpoint."""

import random
from pathlib import Path

import numpy as np
import pytest
import yaml

from polytask.predictions import read_predictions

CONFIG = Path(__file__).parents[2] / "examples" / "census" / "config.yaml"
VARS = yaml.safe_load(CONFIG.read_text())["vars"]
NUMBERS = set(VARS["columns"]["numeric"])
CITIZENSHIP = VARS["names"].index("citizenship")


def person(draw, kinds):
    """Who has much education and many weeks of work earns more; who is old is married."""
    row = {name: str(draw.randrange(50)) if name in NUMBERS else draw.choice(kinds) for name in VARS["names"]}
    rich = int(row["weeks_worked"]) + 25 * kinds.index(row["education"]) > 45
    row["income"] = "50000+." if rich else "- 50000."
    row["marital_status"] = "Never married" if int(row["age"]) < 20 else draw.choice(["Divorced", "Widowed"])
    return list(row.values())


def write(path, rows):
    path.write_text("".join(", ".join(row) + ".\n" for row in rows).replace("..\n", ".\n"))
    return f"vars.file={path}"


@pytest.fixture
def people():
    draw = random.Random(0)
    return [person(draw, ["none", "some", "much"]) for _ in range(1500)]


def test_fit_and_test(cli, tmp_path, monkeypatch, people):
    monkeypatch.chdir(tmp_path)
    words = [CONFIG, write(tmp_path / "people.data", people), "trainer.max_epochs=8"]
    fitted = cli("fit", *words)
    assert fitted.code == 0, fitted.err
    tested = cli("test", *words, "--ckpt", "best")
    assert tested.code == 0, tested.err
    values = {line.split()[1]: line.split()[-2] for line in tested.out.splitlines() if "│ " in line}
    assert float(values["income"]) > 0.8
    assert float(values["never_married"]) > 0.8


def test_predictions_need_the_checkpoint_and_not_the_training_table(cli, tmp_path, monkeypatch, people):
    monkeypatch.chdir(tmp_path)
    table = tmp_path / "people.data"
    words = [write(table, people), "trainer.max_epochs=1"]
    assert cli("fit", CONFIG, *words, "--run-dir", "run").code == 0
    everyone = [*words, "system.dataloaders.test.dataset.part=null"]
    assert cli("predict", CONFIG, *everyone, "--run-dir", "run", "--ckpt", "best").code == 0
    before = read_predictions(Path("run/predictions"))

    table.unlink()
    strangers = [person(random.Random(1), ["none", "some", "much"]) for _ in range(3)]
    for row in strangers:
        row[CITIZENSHIP] = "of the moon"
    new = write(tmp_path / "new.data", [*people[:7], *strangers])
    checkpoint = Path("run/checkpoints/best.ckpt")
    new = new.replace("vars.file", "system.dataloaders.test.dataset.files")
    words = [new, "system.dataloaders.test.dataset.part=null", "--project", CONFIG.parent]
    with pytest.warns(UserWarning, match="3 of 10 values, such as 'of the moon', are not among the 3 categ"):
        found = cli("predict", "--ckpt", checkpoint, *words)
    assert found.code == 0, found.err
    after = read_predictions(Path("run/predictions"))
    for task in ("income", "never_married"):
        assert after[task].shape == (10,)
        np.testing.assert_allclose(after[task][:7], before[task][:7], atol=1e-6)
        assert np.isfinite(after[task]).all()


def test_a_ragged_row_is_named_with_its_line(cli, tmp_path, monkeypatch, people):
    monkeypatch.chdir(tmp_path)
    people[6] = people[6][:-1]
    found = cli("fit", CONFIG, write(tmp_path / "people.data", people))
    assert found.code == 2
    assert found.err.count("\n") == 1
    assert "people.data, line 7: a row must have 42 cells, got 41." in found.err
    assert not Path("runs").exists()
