"""What runs and comparisons are read as, and what is said where they cannot be read."""

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml

from polytask._errors import UserError
from polytask.report import collect
from polytask.report._records import read_run
from tests.report_folders import TASKS, write_comparison, write_parquet, write_run


@pytest.fixture
def run(tmp_path):
    return write_run(tmp_path / "one")


def test_a_run_has_series_and_tasks_in_order(run):
    found = read_run(run)
    assert found.tasks == list(TASKS)
    steps, values = found.metrics["val/digit/Accuracy/epoch"]
    assert steps.tolist() == [39, 79, 119, 159, 199, 239]
    assert len(values) == 6


def test_metrics_without_rows_are_no_series(run):
    (run / "metrics.csv").write_text("epoch,step\n")
    assert read_run(run).metrics == {}


def test_a_line_that_is_still_being_written_is_left_out(run):
    whole = "epoch,step,val/loss/a/epoch\n0,9,0.5\n"
    (run / "metrics.csv").write_text(whole + "1,19,0.2")
    steps, values = read_run(run).metrics["val/loss/a/epoch"]
    assert (steps.tolist(), values.tolist()) == ([9], [0.5])


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "metrics.csv: must begin with the names of its columns, and have `step`. Found an empty file"),
        ("a,b\n1,2\n", "Found a, b"),
        ("step", "Found no whole line"),
        ("epoch,step,x\n0,9,0.5\n0,ten,0.5\n", "metrics.csv, line 3: must have a number"),
        ("epoch,step,x\n0,9,0.5,7\n", "metrics.csv, line 2: must have a number for every column"),
        ("epoch,step,x\n0,9,half\n", "metrics.csv, line 2"),
    ],
)
def test_damaged_metrics_are_named(run, text, message):
    (run / "metrics.csv").write_text(text)
    with pytest.raises(UserError) as error:
        collect([run])
    assert message in str(error.value)


def test_metrics_that_are_no_text_are_named(run):
    (run / "metrics.csv").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(UserError, match=r"metrics\.csv: must be a CSV file"):
        collect([run])


@pytest.mark.parametrize("text", ["", "- a\n", "a: [\n"])
def test_a_damaged_config_is_named(run, text):
    (run / "config.yaml").write_text(text)
    with pytest.raises(UserError, match=r"config\.yaml: must"):
        collect([run])


@pytest.mark.parametrize("name", ["gradients", "affinity", "weights", "losses"])
@pytest.mark.parametrize("content", [b"", b"PAR1 and no more", b"PAR1" + b"\0" * 64 + b"PAR1"])
def test_a_damaged_record_file_is_named(run, name, content):
    (run / "records").mkdir(exist_ok=True)
    (run / "records" / f"{name}.parquet").write_bytes(content)
    with pytest.raises(UserError, match=rf"records/{name}\.parquet"):
        collect([run])


def test_a_record_file_cut_short_is_named(run):
    file = run / "records" / "gradients.parquet"
    file.write_bytes(file.read_bytes()[:-20])
    with pytest.raises(UserError, match=r"gradients\.parquet"):
        collect([run])


def test_a_record_file_with_other_columns_is_named(run):
    write_parquet(run / "records" / "weights.parquet", {"step": [1], "weight": [0.5]})
    with pytest.raises(UserError, match=r"weights\.parquet: has the columns step, epoch, task, weight"):
        collect([run])


def test_a_folder_that_is_no_run_is_named(tmp_path):
    with pytest.raises(UserError, match=r"nowhere: must be the folder of a run.*no such folder"):
        collect([tmp_path / "nowhere"])
    with pytest.raises(UserError, match=r"no config\.yaml in it"):
        collect([tmp_path])


def test_runs_of_different_tasks_are_refused_with_both(run, tmp_path):
    other = write_run(tmp_path / "two", ("digit", "size"))
    with pytest.raises(UserError, match=r"digit, parity in one and digit, size in two"):
        collect([run, other])


def test_a_run_without_records_yet_goes_with_any(run, tmp_path):
    new = tmp_path / "new"
    new.mkdir()
    (new / "config.yaml").write_text("seed: 3\n")
    assert collect([new, run]).tasks == TASKS
    assert collect([new]).tasks == ()


def test_a_run_is_taken_once(run):
    with pytest.raises(UserError, match="takes a run once"):
        collect([run, run])


def test_runs_of_one_name_are_told_apart_by_their_folders(tmp_path):
    paths = [write_run(tmp_path / folder / "run") for folder in ("a", "b")]
    assert [entry.name for entry in collect(paths).entries] == ["a/run", "b/run"]


def test_single_task_runs_become_levels_of_the_last_validation(run, tmp_path):
    single = write_run(tmp_path / "single", ("parity",), seed=3, records=False)
    last = read_run(single).metrics["val/parity/Accuracy/epoch"][1][-1]
    levels = collect([run], [single]).levels
    assert levels["parity", "Accuracy"] == last
    assert set(levels) == {("parity", "Accuracy"), ("parity", "loss")}


def test_a_baseline_of_several_or_other_tasks_is_refused(run, tmp_path):
    with pytest.raises(UserError, match=r"--single-task: takes a run of one of the tasks digit, parity"):
        collect([run], [write_run(tmp_path / "two")])
    with pytest.raises(UserError, match="size in"):
        collect([run], [write_run(tmp_path / "three", ("size",), records=False)])


def test_a_comparison_has_methods_with_seeds_and_single_task_levels(tmp_path):
    folder = write_comparison(tmp_path / "cmp", methods=("equal", "uw"), seeds=2)
    found = collect([folder])
    assert [(entry.name, len(entry.runs)) for entry in found.entries] == [
        ("equal", 2), ("uw", 2), ("tuned_sum", 2),
    ]  # fmt: skip
    singles = [read_run(folder / f"runs/single_task_digit-base-seed{seed}") for seed in range(2)]
    lasts = [run.metrics["val/digit/Accuracy/epoch"][1][-1] for run in singles]
    assert found.levels["digit", "Accuracy"] == pytest.approx(np.mean(lasts))
    assert found.split == "test"
    assert found.table is not None
    assert [row.cells[0] for row in found.table.rows] == ["equal", "uw", "tuned_sum", "single_task"]


def test_a_comparison_stands_alone(tmp_path, run):
    folder = write_comparison(tmp_path / "cmp", methods=("equal",), seeds=1)
    with pytest.raises(UserError, match="takes one comparison alone"):
        collect([folder, run])
    with pytest.raises(UserError, match="--single-task: is for plain runs"):
        collect([folder], [run])


def test_a_comparison_without_results_is_told_what_to_do(tmp_path):
    folder = write_comparison(tmp_path / "cmp", methods=("equal",), seeds=1)
    (folder / "results.parquet").unlink()
    with pytest.raises(UserError, match=r"Run `polytask compare` to its end"):
        collect([folder])


def test_a_comparison_cannot_name_runs_outside_itself(tmp_path, run):
    folder = write_comparison(tmp_path / "cmp", methods=("equal",), seeds=1)
    table = pq.read_table(folder / "results.parquet")
    outside = pa.array(["../one"] * len(table))
    pq.write_table(
        table.set_column(table.schema.get_field_index("run"), "run", outside), folder / "results.parquet"
    )
    with pytest.raises(UserError, match="names runs inside the comparison only"):
        collect([folder])


def test_a_config_cannot_run_anything(run):
    (run / "config.yaml").write_text("a: !!python/object/apply:os.getcwd []\n")
    with pytest.raises(UserError, match=r"config\.yaml: must be YAML"):
        collect([run])


def test_nothing_to_report_is_an_error():
    with pytest.raises(UserError, match="needs the folder of a run"):
        collect([])


def test_the_config_is_kept_as_it_is(run):
    assert read_run(run).config == yaml.safe_load((run / "config.yaml").read_text())
