"""From a config with recorders to a proposal of groups, on the command line."""

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml

from polytask import cli
from polytask.diagnostics import read_affinity, read_gradients

RECORDERS = {
    "gradients": {"_target_": "polytask.diagnostics.GradientRecorder", "every": 2, "groups": "layers"},
    "affinity": {"_target_": "polytask.diagnostics.Affinity", "every": 2},
    "weights": {"_target_": "polytask.diagnostics.WeightRecorder"},
    "losses": {"_target_": "polytask.diagnostics.LossRecorder"},
}


def recorded(folder, values, tasks, notes=None):
    """A run's folder with affinities of one step."""
    (folder / "records").mkdir(parents=True)
    rows = [
        {"step": 0, "epoch": 0, "form": "lookahead", "task": one, "other": other, "affinity": values[i][j]}
        for i, one in enumerate(tasks)
        for j, other in enumerate(tasks)
    ]
    table = pa.Table.from_pylist(rows)
    pq.write_table(table.replace_schema_metadata(notes), folder / "records" / "affinity.parquet")
    return folder


VALUES = [[0.5, 0.2, -0.1], [0.3, 0.5, -0.1], [-0.2, -0.3, 0.5]]


def group(*words):
    return cli.main(["group", *map(str, words)])


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    folder = tmp_path_factory.mktemp("project")
    assert cli.main(["init", str(folder / "digits")]) == 0
    file = folder / "digits" / "config.yaml"
    config = yaml.safe_load(file.read_text())
    config["trainer"] |= {
        "callbacks": RECORDERS,
        "max_epochs": 1,
        "accelerator": "cpu",
        "log_every_n_steps": 1,
    }
    # A folder of its own for Lightning's files must not take the records along.
    config["trainer"]["default_root_dir"] = str(folder / "elsewhere")
    file.write_text(yaml.safe_dump(config))
    assert cli.main(["check", str(file)]) == 0
    assert cli.main(["fit", str(file), "--quiet", "--run-dir", str(folder / "run")]) == 0
    return folder / "run"


@pytest.mark.slow
def test_a_config_records_into_the_run(trained):
    files = sorted(file.name for file in (trained / "records").iterdir())
    assert files == ["affinity.parquet", "gradients.parquet", "losses.parquet", "weights.parquet"]
    assert read_gradients(trained).group == "shared"
    assert np.isfinite(read_affinity(trained).values).all()


def test_groups_of_a_trained_run(trained, capsys):
    tasks = read_affinity(trained).tasks
    assert group("--run", trained, "--groups", len(tasks)) == 0
    said = capsys.readouterr().out
    assert all(task in said for task in tasks)
    assert "best of all splits; mean lookahead affinity" in said
    assert "parameters in all" in said
    assert group("--run", trained, "--groups", 1, "--form", "first_order") == 0
    assert capsys.readouterr().out.count("model ") == 1


def test_groups_are_printed(tmp_path, capsys):
    run = recorded(tmp_path / "run", VALUES, ["cat", "dog", "noise"])
    assert group("--run", run, "--groups", 2) == 0
    assert capsys.readouterr().out.splitlines() == [
        "model 1: cat +0.3, dog +0.2",
        "model 2: noise +0",
        "best of all splits; mean lookahead affinity from the model's other tasks, over 1 steps",
    ]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--groups", "4"], "groups: must be an integer from 1 to 3, got 4."),
        (["--groups", "0"], "groups: must be an integer from 1 to 3"),
        (["--groups", "two"], "invalid int value"),
        (["--groups", "2", "--budget", "9"], "budget: requires the numbers of parameters"),
        (["--groups", "2", "--form", "first_order"], "no affinity of the form 'first_order'"),
        (["--groups", "2", "--form", "last"], "invalid choice"),
        ([], "--groups"),
    ],
)
def test_mistakes_are_one_line(tmp_path, capsys, words, said):
    run = recorded(tmp_path / "run", VALUES, ["cat", "dog", "noise"])
    assert group("--run", run, *words) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert said in error


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (None, "the records do not exist"),
        (b"", "an empty file"),
        (b"PAR1", "must be a record file, got a damaged file"),
    ],
)
def test_records_that_cannot_be_used(tmp_path, capsys, content, said):
    (tmp_path / "records").mkdir()
    if content is not None:
        (tmp_path / "records" / "affinity.parquet").write_bytes(content)
    assert group("--run", tmp_path, "--groups", 2) == 2
    assert said in capsys.readouterr().err
    assert group("--run", tmp_path / "none", "--groups", 2) == 2
    assert "no such folder" in capsys.readouterr().err


def test_a_truncated_file(tmp_path, capsys):
    run = recorded(tmp_path / "run", VALUES, ["cat", "dog", "noise"])
    file = run / "records" / "affinity.parquet"
    whole = file.read_bytes()
    for length in (5, len(whole) // 2, len(whole) - 1):
        file.write_bytes(whole[:length])
        assert group("--run", run, "--groups", 2) == 2
        assert "must be a record file, got a damaged file" in capsys.readouterr().err
